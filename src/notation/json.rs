//! JSON in which every key stands once: a second one of the same name is a slip, and would win silently.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Malformed, pointer_token};

pub(super) fn read(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { place: &Place::Root }.deserialize(&mut json);
    value.and_then(|it| json.end().map(|()| it)).map_err(|error| Malformed {
        detail: error.to_string(),
        line: error.line() as u64,
        column: error.column() as u64,
    })
}

/// Where in the document, without an allocation on the way down.
enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(outer, key) => write!(f, "{outer}/{}", pointer_token(key)),
            Self::Item(outer, index) => write!(f, "{outer}/{index}"),
        }
    }
}

struct Strict<'a> {
    place: &'a Place<'a>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(Number::from_f64(it).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_string<E>(self, it: String) -> Result<Value, E> {
        Ok(Value::String(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) =
            seq.next_element_seed(Strict { place: &Place::Item(self.place, items.len()) })?
        {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if fields.contains_key(&key) {
                let place = Place::Key(self.place, &key);
                return Err(A::Error::custom(format!(
                    "the key {key:?} ({place}) is there twice: keep one of the two"
                )));
            }
            let value = map.next_value_seed(Strict { place: &Place::Key(self.place, &key) })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_named_with_its_place() {
        for (text, place) in [
            (r#"{"image": "a", "image": "a"}"#, "\"image\" (/image)"),
            (r#"{"tasks": [{}, {"env": {"A": 1, "B": 2, "A": 3}}]}"#, "\"A\" (/tasks/1/env/A)"),
            (r#"{"a/b": {"~": 1, "\u007e": 1}}"#, "\"~\" (/a~1b/~0)"),
        ] {
            let malformed = read(text.as_bytes()).unwrap_err();
            assert!(malformed.detail.contains(place), "{malformed}");
        }
        assert_eq!(read(br#"{"a": {"x": 1}, "b": {"x": 1}}"#).unwrap()["b"], json!({"x": 1}));
    }

    #[test]
    fn what_follows_the_document_is_an_error() {
        assert!(read(b"{} {}").is_err());
        assert!(read(b"{}\n ").is_ok());
    }

    proptest! {
        /// Whatever serde_json reads, this reads the same.
        #[test]
        fn it_reads_as_serde_json_does(value in any_value()) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(read(&text).unwrap(), serde_json::from_slice::<Value>(&text).unwrap());
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..8)
                    .prop_map(|it| Value::Object(it.into_iter().collect())),
            ]
        })
    }
}
