//! The place of a task in a trace of its caller: what the W3C headers `traceparent` and `tracestate` say.

use serde::{Deserialize, Serialize};

/// Of the version that we speak, `00`, and valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    pub parent: String,
    /// What vendors add. Never without a parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

const LENGTH: usize = 55;
/// What has to be passed on, at least, and at most here.
const STATE_BYTES: usize = 512;
const STATE_MEMBERS: usize = 32;

impl TraceContext {
    /// None where the parent is not valid. A state that is not valid is dropped.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let parent = parse_parent(parent)?;
        Some(Self { parent, state: state.and_then(parse_state) })
    }
}

fn parse_parent(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags, rest @ ..] = parts.as_slice() else { return None };
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |text: &str| text.bytes().all(|it| it == b'0');
    let valid = hex(version, 2)
        && *version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(span, 16)
        && !zero(span)
        && hex(flags, 2);
    if !valid {
        return None;
    }
    if *version == "00" {
        return (text.len() == LENGTH && rest.is_empty()).then(|| text.to_owned());
    }
    // A later version is read as far as we know it. Of its flags we know one.
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    Some(format!("00-{trace}-{span}-{sampled:02x}"))
}

fn parse_state(text: &str) -> Option<String> {
    let members: Vec<&str> = text.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    let valid = |member: &str| {
        let Some((key, value)) = member.split_once('=') else { return false };
        let key_byte =
            |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"_-*/@".contains(&it);
        !key.is_empty()
            && key.len() <= 256
            && key.bytes().all(key_byte)
            && !value.is_empty()
            && value.len() <= 256
            && value.bytes().all(|it| (b' '..=b'~').contains(&it) && it != b'=')
    };
    let joined = members.join(",");
    let fits = !members.is_empty() && members.len() <= STATE_MEMBERS && joined.len() <= STATE_BYTES;
    (fits && members.iter().copied().all(valid)).then_some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_taken_as_the_standard_says() {
        assert_eq!(TraceContext::parse(PARENT, None).unwrap().parent, PARENT);
        let later = PARENT.replacen("00", "cc", 1).replace("-01", "-ff-what-comes");
        assert_eq!(TraceContext::parse(&later, None).unwrap().parent, PARENT);
        for bad in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-00"),
            &format!("{PARENT}0"),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace("4bf9", "4bf"),
            &PARENT.replace("4bf9", "4bfg"),
            &PARENT.replace("-01", "-é1"),
            &format!(" {PARENT}"),
        ] {
            assert_eq!(TraceContext::parse(bad, Some("a=1")), None, "{bad}");
        }
    }

    #[test]
    fn a_state_is_taken_whole_or_not_at_all() {
        let state = |text: &str| TraceContext::parse(PARENT, Some(text)).unwrap().state;
        assert_eq!(
            state("congo=t61rcWkgMzE, rojo=00f067aa0ba902b7,").unwrap(),
            "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
        );
        let many = vec!["a=1"; 33].join(",");
        for bad in
            ["", "a", "a=", "=1", "A=1", "a=1=2", "a=é", &many, &format!("a={}", "x".repeat(512))]
        {
            assert_eq!(state(bad), None, "{bad}");
        }
    }
}
