//! The end of a log, for reports.

/// What a report holds of a log at most.
const MOST: usize = 64 << 10;

/// Keeps the last bytes of what it is given.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Seldom: each byte is moved once for each time that it is doubled.
        if self.bytes.len() > 2 * MOST {
            self.bytes.drain(..self.bytes.len() - MOST);
            self.cut = true;
        }
    }

    /// Whole lines, as far as there are any.
    pub(crate) fn text(&self) -> String {
        let from = self.bytes.len().saturating_sub(MOST);
        let mut end = &self.bytes[from..];
        if (self.cut || from > 0)
            && let Some(line) = end.iter().position(|it| *it == b'\n')
        {
            end = &end[line + 1..];
        }
        String::from_utf8_lossy(end).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_lines_are_kept() {
        let mut tail = Tail::default();
        tail.add(b"one\n");
        assert_eq!(tail.text(), "one\n");
        for n in 0..40_000 {
            tail.add(format!("line {n}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= MOST && text.len() > MOST - 20, "{}", text.len());
        assert!(text.starts_with("line ") && text.ends_with("line 39999\n"));
        assert!(tail.bytes.len() <= 2 * MOST);
    }
}
