//! Quantities as people write them: `500m` of a CPU, `256Mi` of memory, `1h30m` of time.

use jiff::SignedDuration;

/// Reads CPUs in Kubernetes form (`2`, `0.5`, `500m`) as thousandths of one.
pub fn parse_cpu_millis(text: &str) -> Result<i64, String> {
    let fix = || format!("{text:?} is not a number of CPUs: write \"500m\", \"0.5\" or \"2\"");
    let millis = match text.strip_suffix('m') {
        Some(number) => number.parse::<i64>().map_err(|_| fix())?,
        None => scaled(text, 1_000).ok_or_else(fix)?,
    };
    if millis < 1 {
        return Err(format!("{text:?} is less than a thousandth of a CPU: write at least \"1m\""));
    }
    Ok(millis)
}

/// Reads bytes in Kubernetes form (`256Mi`, `1.5Gi`, `500M`, `1048576`).
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, i64); 10] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("K", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    if let Some(number) = text.strip_suffix('m').filter(|it| scaled(it, 1).is_some()) {
        return Err(format!("{text:?} is in thousandths of a byte: did you mean \"{number}Mi\"?"));
    }
    UNITS
        .iter()
        .find_map(|(unit, factor)| scaled(text.strip_suffix(unit)?, *factor))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| {
            format!("{text:?} is not an amount of memory: write \"256Mi\", \"1Gi\" or bytes")
        })
}

/// Writes thousandths of a CPU the way [`parse_cpu_millis`] reads them.
pub fn format_cpu_millis(millis: i64) -> String {
    format!("{millis}m")
}

/// Writes bytes the way [`parse_bytes`] reads them, in the largest unit that is exact.
pub fn format_bytes(bytes: i64) -> String {
    const UNITS: [(&str, i64); 4] =
        [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let exact = UNITS.into_iter().find(|(_, factor)| bytes % factor == 0);
    exact.map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// `number * factor`, rounded, for a plain decimal number.
fn scaled(number: &str, factor: i64) -> Option<i64> {
    let plain = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit());
    match number.split_once('.') {
        None if plain(number) => number.parse::<i64>().ok()?.checked_mul(factor),
        Some((whole, fraction)) if plain(whole) && plain(fraction) && fraction.len() <= 9 => {
            let whole = whole.parse::<i64>().ok()?.checked_mul(factor)?;
            let scale = 10_i64.pow(u32::try_from(fraction.len()).ok()?);
            let part =
                i128::from(fraction.parse::<i64>().ok()?) * i128::from(factor) / i128::from(scale);
            whole.checked_add(i64::try_from(part).ok()?)
        }
        _ => None,
    }
}

/// Reads a duration such as `50s`, `10m`, `1h30m`, `250ms`.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let fix = || format!("{text:?} is not a duration: write \"50s\", \"10m\" or \"1h30m\"");
    if text.starts_with('-') {
        return Err(format!("{text:?} is negative: a duration is 0 or more, such as \"30s\""));
    }
    let mut rest = text;
    let mut total = SignedDuration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let unit_ms: i64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(fix()),
        };
        let number: i64 = number.parse().map_err(|_| fix())?;
        let part = number.checked_mul(unit_ms).ok_or_else(fix)?;
        total = total.checked_add(SignedDuration::from_millis(part)).ok_or_else(fix)?;
        rest = tail;
    }
    if text.is_empty() {
        return Err(fix());
    }
    Ok(total)
}

/// Writes a duration the way [`parse_duration`] reads it.
pub fn format_duration(duration: SignedDuration) -> String {
    let mut rest = duration.as_millis().max(0);
    let mut text = String::new();
    for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
    {
        if rest >= ms {
            text.push_str(&(rest / ms).to_string());
            text.push_str(unit);
            rest %= ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpus() {
        for (text, millis) in [("500m", 500), ("2", 2_000), ("0.5", 500), ("1.25", 1_250)] {
            assert_eq!(parse_cpu_millis(text), Ok(millis), "{text}");
        }
        for text in ["", "m", "-1", "0", "1e3", "one", "500 m", "99999999999999999999"] {
            assert!(parse_cpu_millis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory() {
        for (text, bytes) in
            [("256Mi", 256 << 20), ("1.5Gi", 3 << 29), ("500M", 500_000_000), ("1048576", 1 << 20)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        assert!(parse_bytes("512m").unwrap_err().contains("512Mi"));
        for text in ["", "Mi", "-1Mi", "0", "1Zi", "10 Mi", "9999999Ti"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [("50s", 50_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(SignedDuration::from_millis(ms)), "{text}");
        }
        assert!(parse_duration("-5s").unwrap_err().contains("negative"));
        for text in ["", "5", "s", "5 s", "5x", "1h-2m", "99999999999999999999d", "PT5S", "é"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_written(ms in 0_i64..10_000_000_000) {
            let duration = SignedDuration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (parse_duration(&text), parse_bytes(&text), parse_cpu_millis(&text));
        }
    }
}
