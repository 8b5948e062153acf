//! A workflow in a file: YAML or JSON, read as the service reads it, with the line of each fault.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::client::Error;
use super::format::printable;
use crate::domain::spec::Fault;
use crate::domain::workflow::{self, Workflow};
use crate::notation::{self, Malformed, Place, Places};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FileArgs {
    /// The workflow: YAML or JSON; "-" is stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub(crate) struct Found {
    place: Option<Place>,
    fault: Fault,
}

impl Found {
    pub(crate) fn new(fault: Fault, place: Option<Place>) -> Self {
        Self { place, fault }
    }

    /// As compilers say it, so that editors find the place.
    pub(crate) fn line(&self, file: &str) -> String {
        let Fault { pointer, code, detail } = &self.fault;
        let place = self.place.map(|it| format!(":{}:{}", it.line, it.column)).unwrap_or_default();
        let pointer = if pointer.is_empty() { String::new() } else { format!(" at {pointer}") };
        printable(&format!("{file}{place}: {detail} [{code}{pointer}]"))
    }

    pub(crate) fn json(&self) -> Value {
        let Fault { pointer, code, detail } = &self.fault;
        let mut it = json!({"pointer": pointer, "code": code, "detail": detail});
        if let Some(place) = self.place {
            it["line"] = place.line.into();
            it["column"] = place.column.into();
        }
        it
    }
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct WorkflowFile {
    /// As it is named to people.
    pub(crate) name: String,
    pub(crate) read: Result<Workflow, Vec<Found>>,
}

impl FileArgs {
    /// An error where there is no file to read; what is wrong inside is in the answer.
    pub(crate) fn read(&self) -> Result<WorkflowFile, Error> {
        let mut bytes = Vec::new();
        let (name, read) = if self.file == Path::new("-") {
            ("stdin".to_owned(), std::io::stdin().read_to_end(&mut bytes).map(|_| bytes))
        } else {
            (self.file.display().to_string(), std::fs::read(&self.file))
        };
        let bytes = read.map_err(|error| Error::Usage(format!("can't read {name}: {error}")))?;
        Ok(WorkflowFile { name, read: read_workflow(&bytes) })
    }
}

fn read_workflow(bytes: &[u8]) -> Result<Workflow, Vec<Found>> {
    let is_json = bytes.trim_ascii_start().first() == Some(&b'{');
    let (document, places) = if is_json {
        let document = notation::read_json(bytes)
            .map_err(|it| vec![malformed("malformed_json", "JSON", it)])?;
        // What is too large for YAML has no lines.
        let places = notation::read_yaml_with_places(bytes).map(|(_, it)| it);
        (document, places.unwrap_or_default())
    } else {
        notation::read_yaml_with_places(bytes)
            .map_err(|it| vec![malformed("malformed_yaml", "YAML", it)])?
    };
    workflow::parse_offline(&document).map_err(|faults| {
        let mut found: Vec<Found> = faults.into_iter().map(|it| found(it, &places)).collect();
        // In the order of the file, as somebody goes through it.
        found.sort_by_key(|it| it.place);
        found
    })
}

fn found(fault: Fault, places: &Places) -> Found {
    let is_of_key = matches!(fault.code, "unknown_field" | "duplicate" | "cycle")
        || fault.detail.contains("can't name");
    let place =
        if is_of_key { places.of_key(&fault.pointer) } else { places.of_value(&fault.pointer) };
    Found { place, fault }
}

fn malformed(code: &'static str, notation: &str, it: Malformed) -> Found {
    // Its place is said before.
    let detail = it.detail.split(" at line ").next().unwrap_or_default();
    let fault =
        Fault::new("", code, format!("not valid {notation}: {}", detail.trim_end_matches(',')));
    Found { place: Some(Place { line: it.line, column: it.column }), fault }
}

/// `-p name=value`, read by the types of the params.
pub(crate) fn params(workflow: &Workflow, given: &[(String, String)]) -> Map<String, Value> {
    given.iter().map(|(name, text)| (name.clone(), workflow.params.read_text(name, text))).collect()
}

/// `name=value`
pub(crate) fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
