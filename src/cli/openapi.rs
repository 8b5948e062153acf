//! `supercargo openapi`: writes `openapi/openapi.json` and, beside it, the same in version 3.0 of the standard; or
//! checks that the written ones are current.

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

    /// File to write or to compare with, and beside it one for version 3.0, with "-3.0" in its name; "-" is
    /// stdout
    #[arg(long, value_name = "FILE", default_value = DOCUMENT)]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Args { check, output } = args;
    let documents = crate::api::openapi();
    if output == Path::new("-") && !check {
        out::text(documents.v3_1)?;
        return Ok(Exit::Ok);
    }
    let mut exit = Exit::Ok;
    for (path, document) in [(output.clone(), documents.v3_1), (older(output), documents.v3_0)] {
        if !check {
            write(&path, &document)?;
        } else if !is_current(&path, output, &document)? {
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

/// `openapi.json` → `openapi-3.0.json`
fn older(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-3.0");
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

fn write(path: &Path, document: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    std::fs::write(path, document).with_context(|| format!("write {}", path.display()))
}

fn is_current(path: &Path, output: &Path, document: &str) -> anyhow::Result<bool> {
    let written = match std::fs::read_to_string(path) {
        Ok(written) => written,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    if written == document {
        return Ok(true);
    }
    let fix = if output == Path::new(DOCUMENT) {
        "supercargo openapi".to_owned()
    } else {
        format!("supercargo openapi --output {}", output.display())
    };
    let differs = written.lines().zip(document.lines()).take_while(|(a, b)| a == b).count() + 1;
    out::error(format_args!(
        "{} is not what this version serves, from line {differs} on: run `{fix}`",
        path.display()
    ));
    Ok(false)
}
