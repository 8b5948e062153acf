//! A JUnit file, as GitLab, Jenkins and the rest read it: a test case for each task.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Verdict, Word};

pub(super) fn document(verdicts: &[Verdict], took: Duration) -> String {
    let count = |words: &[Word]| verdicts.iter().filter(|it| words.contains(&it.word)).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\"",
        verdicts.len(),
        count(&[Word::Failed]),
        count(&[Word::Cancelled, Word::Unfinished]),
        count(&[Word::Skipped]),
        took.as_secs_f64()
    );
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml += &format!("<testsuites name=\"supercargo\" {counts}>\n");
    xml += &format!("  <testsuite name=\"supercargo\" {counts}>\n");
    for verdict in verdicts {
        case(&mut xml, verdict);
    }
    xml += "  </testsuite>\n</testsuites>\n";
    xml
}

fn case(xml: &mut String, verdict: &Verdict) {
    let Verdict { id, name, word, message, reason, exit_code, time, log } = verdict;
    *xml += &format!(
        "    <testcase name=\"{}\" classname=\"supercargo\" time=\"{:.3}\">\n",
        escaped(name),
        time.as_secs_f64()
    );
    *xml += "      <properties>\n";
    let exit_code = exit_code.map(|it| it.to_string()).unwrap_or_default();
    for (key, value) in [("id", id.as_str()), ("state", word.as_str()), ("exit_code", &exit_code)] {
        if !value.is_empty() {
            *xml += &format!("        <property name=\"{key}\" value=\"{}\"/>\n", escaped(value));
        }
    }
    *xml += "      </properties>\n";
    let fault = |tag: &str| {
        let (message, kind) = (escaped(message), escaped(reason));
        format!("      <{tag} message=\"{message}\" type=\"{kind}\">{message}</{tag}>\n")
    };
    *xml += &match word {
        Word::Succeeded => String::new(),
        Word::Skipped => "      <skipped/>\n".to_owned(),
        // The task's own fault, and what kept it from being judged.
        Word::Failed => fault("failure"),
        Word::Cancelled | Word::Unfinished => fault("error"),
    };
    if !log.is_empty() {
        *xml += &format!("      <system-out>{}</system-out>\n", escaped(log));
    }
    *xml += "    </testcase>\n";
}

/// For attributes and text alike. XML has no way at all to hold most control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\t' | '\n' => escaped.push(it),
            '\r' => escaped += "&#13;",
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => {
                // As a picture of itself: ␛ for an escape.
                let code = u32::from(it);
                let picture = char::from_u32(0x2400 + code).filter(|_| code < 0x20);
                write!(escaped, "{}", picture.unwrap_or('\u{fffd}')).unwrap_or_default();
            }
            _ => escaped.push(it),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_a_case() {
        let verdict = |name: &str, word: Word, message: &str, log: &str| Verdict {
            id: "7".to_owned(),
            name: name.to_owned(),
            word,
            message: message.to_owned(),
            reason: "exit_nonzero".to_owned(),
            exit_code: (word == Word::Failed).then_some(3),
            time: Duration::from_millis(1_250),
            log: log.to_owned(),
        };
        let verdicts = [
            verdict("good", Word::Succeeded, "", ""),
            verdict("skipped", Word::Skipped, "", ""),
            verdict("a \"b\" <c>", Word::Failed, "exited & left", "]]> \u{1b}[31mred\r\n\u{0}"),
            verdict("slow", Word::Unfinished, "goes on", ""),
        ];
        insta::assert_snapshot!(document(&verdicts, Duration::from_secs(2)));
    }
}
