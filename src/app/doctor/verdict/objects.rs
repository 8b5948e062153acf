//! The object store: whether it takes files, and whether it is the one of this installation.

use super::{Check, space, unknown};
use crate::app::doctor::facts::ObjectFacts;
use crate::outputs::FolderStore;

const NAME: &str = "object store";
const ID: &str = "object store identity";

pub(super) fn judge(facts: &ObjectFacts) -> Vec<Check> {
    let mut checks = vec![writes(facts)];
    if let Some(free) = facts.space {
        let fix = "make room: attempts with file outputs can't end without it, and fail after timeouts.finish";
        checks.push(space("object store disk", "in the object store", free, fix));
    }
    checks.push(identity(facts));
    checks
}

fn writes(facts: &ObjectFacts) -> Check {
    let folder = facts.folder.display();
    match &facts.probe {
        Some(Ok(took)) => Check::ok(
            NAME,
            format!(
                "{folder} takes a file, synced and read back in {:.1} ms",
                took.as_secs_f64() * 1e3
            ),
        ),
        Some(Err(why)) => Check::fail(
            NAME,
            format!("{folder} does not take a file: {why}"),
            "see that its file system is mounted and writable, and run this as the user that runs the service",
        ),
        None => Check::fail(
            NAME,
            format!("there is no folder {folder}"),
            "mount it, if it lies on a file system of its own; else start the service, which makes it, or let \
             object_store.folder name the one of the other processes",
        ),
    }
}

fn identity(facts: &ObjectFacts) -> Check {
    let folder = facts.folder.display();
    let (in_use, id) = match (&facts.in_use, &facts.id) {
        (Err(why), _) => return unknown(ID, why),
        (_, Err(why)) => {
            return Check::fail(
                ID,
                format!("the id of {folder} can't be read: {why}"),
                "run this as the user that runs the service; a file without an id is to be restored from a copy",
            );
        }
        (Ok(in_use), Ok(id)) => (in_use, id),
    };
    match (in_use, id) {
        (Some(in_use), Some(id)) if in_use.id == *id => {
            Check::ok(ID, format!("it is the one of this installation ({id})"))
        }
        (Some(in_use), id) => {
            let found =
                id.map_or_else(|| "it has no id".to_owned(), |it| format!("its id is {it}"));
            Check::fail(
                ID,
                format!(
                    "{folder} is not the one of this installation ({found}), which is {} (with the id {})",
                    in_use.place, in_use.id
                ),
                format!(
                    "let object_store.folder name the same folder for every process, and see that it is mounted; \
                     if its files were moved here, or are lost for good: echo {} > {folder}/{}",
                    in_use.id,
                    FolderStore::ID_FILE
                ),
            )
        }
        (None, _) => Check::warn(
            ID,
            "no process has said yet which one is that of this installation",
            "the next start of the service does",
        ),
    }
}
