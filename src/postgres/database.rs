//! The one database in the private cluster.
//!
//! Invariant: after `ensure` a real query has been answered, the database exists, and the settings
//! that durability rests on are in force.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::cluster::{Cluster, DURABLE, last_lines};
use super::{DATABASE, Error, PORT, USER};

const WITHIN: Duration = Duration::from_mins(1);

/// Creates the database if it does not exist and checks the settings, with one run of `psql`.
pub(super) async fn ensure(cluster: &Cluster) -> Result<(), Error> {
    let mut script = format!(
        "select 'create database {DATABASE}' where not exists \
         (select from pg_database where datname = '{DATABASE}') \\gexec\n\\connect {DATABASE}\n"
    );
    script.extend(
        DURABLE.iter().map(|(name, _)| format!("select '{name}', current_setting('{name}');\n")),
    );
    let output = run(cluster, &script).await?;
    check_durable(&output)
}

/// Runs a script in the maintenance database; the answer is one row per line, `|` between columns.
pub(super) async fn run(cluster: &Cluster, script: &str) -> Result<String, Error> {
    let program = cluster.binaries.program("psql");
    let mut child = Command::from(cluster.command("psql"))
        .args(["--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only"])
        .args(["--set=ON_ERROR_STOP=1", "--dbname=postgres", "--username", USER])
        .args(["--port", &PORT.to_string(), "--host"])
        .arg(&cluster.socket_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io("run", &program))?;
    let input = child.stdin.take();
    let answered = tokio::time::timeout(WITHIN, async {
        if let Some(mut input) = input {
            // If psql has ended before, its own message says more than the broken pipe.
            drop(input.write_all(script.as_bytes()).await);
        }
        child.wait_with_output().await
    });
    let failed =
        |status: String, output: String| Error::Program { program: "psql", status, output };
    let output = match answered.await {
        Ok(output) => output.map_err(Error::io("run", &program))?,
        Err(_) => {
            return Err(failed(format!("no answer within {} s", WITHIN.as_secs()), String::new()));
        }
    };
    if !output.status.success() {
        return Err(failed(output.status.to_string(), last_lines(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn check_durable(output: &str) -> Result<(), Error> {
    for (name, wanted) in DURABLE {
        let value = output
            .lines()
            .find_map(|line| line.split_once('|').filter(|(key, _)| key == name))
            .map_or("unknown", |(_, value)| value);
        if value != *wanted {
            return Err(Error::NotDurable { setting: (*name).to_owned(), value: value.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_that_could_lose_a_commit_is_an_error() {
        let good = "fsync|on\nsynchronous_commit|on\nfull_page_writes|on\n";
        check_durable(good).unwrap();
        for bad in [
            good.replace("fsync|on", "fsync|off"),
            good.replace("synchronous_commit|on\n", ""),
            String::new(),
        ] {
            let error = check_durable(&bad).unwrap_err();
            assert!(matches!(error, Error::NotDurable { .. }), "{error}");
        }
    }
}
