//! From what a sandbox left to the outputs of its task, and to what is wrong with them. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::failure::{Failure, Reason};
use crate::domain::outcome::{Output, OutputValue};
use crate::domain::spec::{OutputDecl, OutputSource, is_output_name};
use crate::runner::{Collected, FileResult, JsonFile};

/// The outputs that can be kept, and the first fault.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gathered {
    pub outputs: Vec<Output>,
    pub fault: Option<Failure>,
}

impl Gathered {
    fn fault(&mut self, reason: Reason, message: impl Into<String>) {
        // The first one is the cause that people look at.
        self.fault.get_or_insert_with(|| Failure::new(reason, message));
    }

    fn push(&mut self, name: &str, value: OutputValue) {
        if !self.outputs.iter().any(|it| it.name == name) {
            self.outputs.push(Output { name: name.to_owned(), value });
        }
    }
}

/// Puts the outputs together. `all_lines` is None where stdout is too long to be one.
pub fn gather(
    declared: &BTreeMap<String, OutputDecl>,
    collected: &Collected,
    last_line: Option<&str>,
    all_lines: Option<&[String]>,
    json_limit: u64,
) -> Gathered {
    let mut it = Gathered::default();
    for (name, decl) in declared {
        match &decl.source {
            OutputSource::Json => {}
            OutputSource::LastLine => {
                if let Some(line) = last_line {
                    push_line(&mut it, name, line, json_limit);
                }
            }
            OutputSource::AllLines => match all_lines {
                Some(lines) => it.push(name, OutputValue::Json(lines.into())),
                None => it.fault(
                    Reason::OutputTooLarge,
                    format!("output {name:?}: stdout is larger than {json_limit} bytes; hand it back as a file"),
                ),
            },
            OutputSource::Path(path) => match collected.files.get(name) {
                Some(FileResult::Stored(file)) => it.push(name, OutputValue::File(file.clone())),
                Some(FileResult::TooLarge { size }) => it.fault(
                    Reason::OutputTooLarge,
                    format!("output {name:?}: {path} has {size} bytes, more than the limit for a file"),
                ),
                Some(FileResult::Unsuitable(why)) => {
                    it.fault(Reason::OutputInvalid, format!("output {name:?}: {path} {why}"));
                }
                Some(FileResult::Missing) | None => {}
            },
        }
    }
    gather_json(&mut it, &collected.json, json_limit);
    let nothing_said = declared.is_empty() && collected.json == JsonFile::Absent;
    if nothing_said && let Some(line) = last_line.filter(|line| line.len() as u64 <= json_limit) {
        // As users of Airflow expect. A line too long for it is in the log all the same.
        it.push(IMPLICIT, OutputValue::Json(line.into()));
    }
    for (name, decl) in declared {
        if decl.required && !it.outputs.iter().any(|output| output.name == *name) {
            let wanted = match &decl.source {
                OutputSource::Json => {
                    format!("no key {name:?} in the file that $SUPERCARGO_OUTPUT names")
                }
                OutputSource::LastLine | OutputSource::AllLines => {
                    "nothing was written to stdout".to_owned()
                }
                OutputSource::Path(path) => format!("{path} does not exist"),
            };
            it.fault(
                Reason::OutputInvalid,
                format!("required output {name:?} is missing: {wanted}"),
            );
        }
    }
    it
}

/// The name of the output of a task that declares none and writes no file.
pub(super) const IMPLICIT: &str = "last_line";

fn push_line(it: &mut Gathered, name: &str, line: &str, limit: u64) {
    if line.len() as u64 > limit {
        it.fault(
            Reason::OutputTooLarge,
            format!("output {name:?}: the last line of stdout is larger than {limit} bytes"),
        );
    } else {
        it.push(name, OutputValue::Json(line.into()));
    }
}

fn gather_json(it: &mut Gathered, json: &JsonFile, limit: u64) {
    let bytes = match json {
        JsonFile::Absent => return,
        JsonFile::TooLarge { size } => {
            it.fault(
                Reason::OutputTooLarge,
                format!(
                    "the file that $SUPERCARGO_OUTPUT names has {size} bytes, more than {limit}: hand large \
                     data back as a file output"
                ),
            );
            return;
        }
        JsonFile::Cut { at } => {
            it.fault(
                Reason::OutputTooLarge,
                format!(
                    "the file that $SUPERCARGO_OUTPUT names has {at} bytes or more, of which a pod hands back \
                     fewer: declare one of the outputs in it, such as \"outputs\": {{\"words\": {{}}}}, and it is \
                     read whole"
                ),
            );
            return;
        }
        JsonFile::Bytes(bytes) => bytes,
    };
    // A file that was made and not written to says nothing.
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return;
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(map)) => {
            for (name, value) in map {
                if is_output_name(&name) {
                    it.push(&name, OutputValue::Json(value));
                } else {
                    it.fault(
                        Reason::OutputInvalid,
                        format!(
                            "the key {name:?} in the file that $SUPERCARGO_OUTPUT names can't name an output: \
                             use letters, digits, \"_\", \"-\" and \".\""
                        ),
                    );
                }
            }
        }
        Ok(_) => it.fault(
            Reason::OutputInvalid,
            "the file that $SUPERCARGO_OUTPUT names must hold one JSON object, such as {\"words\": 7}",
        ),
        Err(error) => it.fault(
            Reason::OutputInvalid,
            format!("the file that $SUPERCARGO_OUTPUT names is not JSON: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decl(source: OutputSource, required: bool) -> OutputDecl {
        OutputDecl { source, required }
    }

    fn collected(json: JsonFile) -> Collected {
        Collected { json, files: BTreeMap::new() }
    }

    fn run(
        declared: &[(&str, OutputDecl)],
        json: JsonFile,
        last: Option<&str>,
    ) -> (Value, Option<Reason>) {
        let declared = declared.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
        let it = gather(&declared, &collected(json), last, None, 100);
        let values = it.outputs.into_iter().map(|it| match it.value {
            OutputValue::Json(value) => (it.name, value),
            OutputValue::File(file) => (it.name, json!(file.size)),
        });
        (Value::Object(values.collect()), it.fault.map(|it| it.reason))
    }

    fn bytes(text: &str) -> JsonFile {
        JsonFile::Bytes(text.into())
    }

    #[test]
    fn with_nothing_declared_and_no_file_the_last_line_is_the_result() {
        assert_eq!(run(&[], JsonFile::Absent, Some("hi")), (json!({"last_line": "hi"}), None));
        assert_eq!(run(&[], JsonFile::Absent, None), (json!({}), None));
        assert_eq!(run(&[], bytes("{}"), Some("hi")), (json!({}), None));
    }

    #[test]
    fn each_key_of_the_file_is_an_output_declared_or_not() {
        let declared = [("a", decl(OutputSource::Json, true))];
        assert_eq!(
            run(&declared, bytes("{\"a\": 1, \"b\": [2]}"), None),
            (json!({"a": 1, "b": [2]}), None)
        );
        assert_eq!(run(&declared, bytes("{\"b\": 2}"), None).1, Some(Reason::OutputInvalid));
        assert_eq!(
            run(&declared, JsonFile::Absent, Some("x")),
            (json!({}), Some(Reason::OutputInvalid))
        );
    }

    #[test]
    fn a_file_that_is_no_object_is_a_fault() {
        for text in ["[1]", "3", "{", "{\"a b\": 1}", "nonsense"] {
            assert_eq!(run(&[], bytes(text), None).1, Some(Reason::OutputInvalid), "{text}");
        }
        assert_eq!(run(&[], bytes(" \n"), None).1, None);
        assert_eq!(
            run(&[], JsonFile::TooLarge { size: 101 }, None).1,
            Some(Reason::OutputTooLarge)
        );
    }

    #[test]
    fn lines_are_outputs_where_declared() {
        let declared = [("last", decl(OutputSource::LastLine, true))];
        assert_eq!(run(&declared, JsonFile::Absent, Some("x")), (json!({"last": "x"}), None));
        assert_eq!(
            run(&declared, JsonFile::Absent, Some(&"x".repeat(101))).1,
            Some(Reason::OutputTooLarge)
        );
        assert_eq!(run(&declared, JsonFile::Absent, None).1, Some(Reason::OutputInvalid));
    }

    #[test]
    fn a_missing_file_matters_only_where_it_is_required() {
        let path = || OutputSource::Path("/out/r.csv".to_owned());
        assert_eq!(run(&[("r", decl(path(), false))], JsonFile::Absent, None), (json!({}), None));
        assert_eq!(
            run(&[("r", decl(path(), true))], JsonFile::Absent, None).1,
            Some(Reason::OutputInvalid)
        );
    }
}
