//! `supercargo openapi`: writes `openapi/openapi.json`, or checks that the written one is current.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::exit::Exit;
use super::out;

const DOCUMENT: &str = "openapi/openapi.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare instead of writing, and fail where the two differ
    #[arg(long)]
    check: bool,

    /// File to write or to compare with; "-" is stdout
    #[arg(long, value_name = "FILE", default_value = DOCUMENT)]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Args { check, output } = args;
    let mut document = crate::api::openapi_json();
    if !document.ends_with('\n') {
        document.push('\n');
    }
    if *check {
        return check_against(output, &document);
    }
    if output == Path::new("-") {
        out::text(document)?;
        return Ok(Exit::Ok);
    }
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    std::fs::write(output, document).with_context(|| format!("write {}", output.display()))?;
    Ok(Exit::Ok)
}

fn check_against(path: &Path, document: &str) -> anyhow::Result<Exit> {
    let written = match std::fs::read_to_string(path) {
        Ok(written) => written,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    if written == document {
        return Ok(Exit::Ok);
    }
    let fix = if path == Path::new(DOCUMENT) {
        "supercargo openapi".to_owned()
    } else {
        format!("supercargo openapi --output {}", path.display())
    };
    let differs = written.lines().zip(document.lines()).take_while(|(a, b)| a == b).count() + 1;
    out::error(format_args!(
        "{} is not what this version serves, from line {differs} on: run `{fix}`",
        path.display()
    ));
    Ok(Exit::Failed)
}
