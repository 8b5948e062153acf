//! The header `Range` on a log of known length (RFC 9110, section 14).

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Part {
    /// There is no range that is understood, or there are several: the whole log answers that.
    Whole,
    /// The first byte and the last one.
    Bytes(u64, u64),
    /// Bytes that are not there.
    Outside,
}

/// Reads the value of the header.
pub(in crate::api) fn part(value: &str, length: u64) -> Result<Part, String> {
    let bad = || {
        format!(
            "Range: {value:?} can't be read: write \"bytes=0-999\", \"bytes=1000-\" or \"bytes=-1000\""
        )
    };
    let (unit, ranges) = value.split_once('=').ok_or_else(bad)?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || ranges.contains(',') {
        return Ok(Part::Whole);
    }
    let (first, last) = ranges.trim().split_once('-').ok_or_else(bad)?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        // More digits than fit are a place behind every log.
        digits.then(|| text.parse().unwrap_or(u64::MAX)).ok_or_else(bad)
    };
    let (first, last) = match (first.trim(), last.trim()) {
        ("", count) => (length.saturating_sub(number(count)?), u64::MAX),
        (first, "") => (number(first)?, u64::MAX),
        (first, last) => (number(first)?, number(last)?),
    };
    if first > last {
        return Err(bad());
    }
    if first >= length {
        return Ok(Part::Outside);
    }
    Ok(Part::Bytes(first, last.min(length - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        use Part::{Bytes, Outside, Whole};
        for (value, length, expected) in [
            ("bytes=0-0", 10, Bytes(0, 0)),
            ("bytes=2-5", 10, Bytes(2, 5)),
            ("bytes=2-", 10, Bytes(2, 9)),
            ("bytes=2-1000", 10, Bytes(2, 9)),
            ("bytes=9-9", 10, Bytes(9, 9)),
            ("bytes=-3", 10, Bytes(7, 9)),
            ("bytes=-1000", 10, Bytes(0, 9)),
            ("Bytes = 2 - 5 ", 10, Bytes(2, 5)),
            ("bytes=10-", 10, Outside),
            ("bytes=10-20", 10, Outside),
            ("bytes=-0", 10, Outside),
            ("bytes=0-", 0, Outside),
            ("bytes=-5", 0, Outside),
            ("bytes=99999999999999999999999-", 10, Outside),
            ("bytes=0-99999999999999999999999", 10, Bytes(0, 9)),
            ("bytes=0-1,3-4", 10, Whole),
            ("lines=0-1", 10, Whole),
        ] {
            assert_eq!(part(value, length), Ok(expected), "{value} of {length}");
        }
        for value in
            ["bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=+1-2", "bytes=1"]
        {
            assert!(part(value, 10).unwrap_err().contains("bytes=0-999"), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_range_leaves_the_log(first: Option<u64>, last: Option<u64>, length: u64) {
            let text = |it: Option<u64>| it.map_or_else(String::new, |it| it.to_string());
            match part(&format!("bytes={}-{}", text(first), text(last)), length) {
                Ok(Part::Bytes(from, to)) => prop_assert!(from <= to && to < length),
                Ok(Part::Outside) => {
                    let suffix_of_nothing = first.is_none() && (last == Some(0) || length == 0);
                    prop_assert!(suffix_of_nothing || first.is_some_and(|it| it >= length));
                }
                Ok(Part::Whole) => prop_assert!(false, "a single range is understood"),
                Err(_) => {
                    let backwards = first.zip(last).is_some_and(|(first, last)| first > last);
                    prop_assert!(backwards || (first.is_none() && last.is_none()));
                }
            }
        }
    }
}
