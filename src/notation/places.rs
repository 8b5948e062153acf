//! Where in a text each value of its document stands.

use std::collections::HashMap;

/// From 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// By JSON pointer: the key, where it has one, and the value.
#[derive(Debug, Clone, Default)]
pub struct Places(HashMap<String, (Option<Place>, Place)>);

impl Places {
    pub(super) fn put(&mut self, pointer: String, key: Option<Place>, value: Place) {
        self.0.insert(pointer, (key, value));
    }

    /// Of the value; of what is around it where there is none, as of a field that is missing.
    pub fn of_value(&self, pointer: &str) -> Option<Place> {
        self.nearest(pointer, |_, value| value)
    }

    /// Of the key that the value has, for faults of the key itself.
    pub fn of_key(&self, pointer: &str) -> Option<Place> {
        self.nearest(pointer, |key, value| key.unwrap_or(value))
    }

    fn nearest(&self, pointer: &str, which: fn(Option<Place>, Place) -> Place) -> Option<Place> {
        if let Some((key, value)) = self.0.get(pointer) {
            return Some(which(*key, *value));
        }
        let (mut rest, _) = pointer.rsplit_once('/')?;
        loop {
            if let Some((key, value)) = self.0.get(rest) {
                return Some(key.unwrap_or(*value));
            }
            rest = rest.rsplit_once('/')?.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_yaml_with_places;
    use super::*;

    #[test]
    fn what_is_missing_is_where_it_should_stand() {
        let text = "name: x\ntasks:\n  a/b:\n    image: &i busybox\n    env: {A: 1, 'B': [x, y]}\n  c:\n  - *i\n  - {z: 1}\n";
        let (_, places) = read_yaml_with_places(text.as_bytes()).unwrap();
        let at = |line, column| Some(Place { line, column });
        for (pointer, key, value) in [
            ("", at(1, 1), at(1, 1)),
            ("/name", at(1, 1), at(1, 7)),
            ("/tasks/a~1b", at(3, 3), at(4, 5)),
            ("/tasks/a~1b/env/B/1", at(5, 26), at(5, 26)),
            ("/tasks/a~1b/env/B", at(5, 17), at(5, 22)),
            ("/tasks/a~1b/command", at(3, 3), at(3, 3)),
            ("/tasks/a~1b/command/0/x", at(3, 3), at(3, 3)),
            ("/tasks/c/0", at(7, 5), at(7, 5)),
            ("/tasks/c/1/z", at(8, 6), at(8, 9)),
            ("/other", at(1, 1), at(1, 1)),
        ] {
            assert_eq!(
                (places.of_key(pointer), places.of_value(pointer)),
                (key, value),
                "{pointer}"
            );
        }
        let (_, places) = read_yaml_with_places(b"{\"a\":\n {\"b\": [1]}}").unwrap();
        assert_eq!((places.of_key("/a/b"), places.of_value("/a/b/0")), (at(2, 3), at(2, 9)));
    }
}
