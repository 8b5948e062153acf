//! The system user that the private Postgres runs as.
//!
//! Invariants: Postgres never runs as root; a cluster is always run by its owner; a program started
//! here gets an environment of its own (no `PG*` variables, no secrets of the service), and when root
//! steps down, none of root's groups.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether the service is root and has to step down to this user.
    steps_down: bool,
}

impl Account {
    /// The owner of the cluster; for a new one the service's own user, or an unprivileged one if that is root.
    pub(super) fn choose(cluster: &Path) -> Result<Self, Error> {
        let own = rustix::process::geteuid();
        let users = users();
        let owner = fs::metadata(cluster).ok().map(|meta| (meta.uid(), meta.gid()));
        if !own.is_root() {
            let own = own.as_raw();
            if let Some((owner, _)) = owner
                && owner != own
            {
                let cluster = cluster.to_owned();
                return Err(Error::ForeignCluster { cluster, owner, own });
            }
            let name = users.into_iter().find(|user| user.uid == own).map(|user| user.name);
            return Ok(Self {
                name: name.unwrap_or_else(|| own.to_string()),
                uid: own,
                gid: rustix::process::getegid().as_raw(),
                steps_down: false,
            });
        }
        if let Some((uid, gid)) = owner
            && uid != 0
        {
            let user = users.into_iter().find(|user| user.uid == uid);
            return Ok(user.unwrap_or(Self { name: uid.to_string(), uid, gid, steps_down: true }));
        }
        ["postgres", "_postgres", "nobody"]
            .iter()
            .find_map(|name| users.iter().find(|user| user.name == *name && user.uid != 0))
            .cloned()
            .ok_or(Error::NoUnprivilegedUser)
    }

    /// A command of this user, in a directory that it may enter.
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(
                ["PATH", "LD_LIBRARY_PATH"]
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .envs([("LC_ALL", "C"), ("TZ", "UTC")])
            .current_dir(dir)
            .stdin(Stdio::null());
        if self.steps_down {
            // With a user id given, the standard library also drops all supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Hands over what root made, and sets its mode. By descriptor: its new owner could have put a
    /// link in the place of the path.
    pub(super) fn take(&self, file: &File, path: &Path, mode: u32) -> Result<(), Error> {
        if self.steps_down {
            std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))
                .map_err(Error::io("hand over to the database user", path))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(Error::io("set the mode of", path))
    }

    /// Fails with the first folder on the way that this user may not enter. The kernel is asked, as
    /// mode bits alone don't tell (access lists, mounts).
    pub(super) fn check_may_enter(&self, dir: &Path, program: &Path) -> Result<(), Error> {
        if !self.steps_down || self.enters(dir, program)? {
            return Ok(());
        }
        if !self.enters(Path::new("/"), program)? {
            return Err(Error::NotExecutable {
                user: self.name.clone(),
                program: program.to_owned(),
            });
        }
        let mut ancestors: Vec<&Path> = dir.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            if !self.enters(ancestor, program)? {
                return Err(Error::Untraversable {
                    user: self.name.clone(),
                    dir: ancestor.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn enters(&self, dir: &Path, program: &Path) -> Result<bool, Error> {
        let run = self.command(program, dir).arg("--version").stdout(Stdio::null()).status();
        match run {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(Error::io("run", program)(error)),
        }
    }
}

fn users() -> Vec<Account> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    parse_passwd(&text)
}

fn parse_passwd(text: &str) -> Vec<Account> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { name, uid, gid, steps_down: true })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_that_make_no_sense_are_skipped() {
        let users = parse_passwd(
            "root:x:0:0:root:/root:/bin/bash\n# comment\nnobody:*:-2:-2::/:/bin/false\n\
             postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n+::::::\n",
        );
        let seen: Vec<_> = users.iter().map(|u| (u.name.as_str(), u.uid, u.gid)).collect();
        assert_eq!(seen, [("root", 0, 0), ("postgres", 101, 104)]);
    }

    #[test]
    fn command_has_none_of_the_variables_of_the_service() {
        let account = Account { name: String::new(), uid: 1, gid: 1, steps_down: false };
        let output = account.command(Path::new("/usr/bin/env"), Path::new("/")).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(output.lines().any(|line| line == "LC_ALL=C"), "{output}");
        let names = output.lines().filter_map(|line| line.split_once('='));
        let allowed = ["PATH", "LD_LIBRARY_PATH", "LC_ALL", "TZ"];
        assert!(names.into_iter().all(|(name, _)| allowed.contains(&name)), "{output}");
    }

    #[test]
    fn stepping_down_from_root_leaves_no_group_of_root() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can step down");
            return;
        }
        let account = Account { name: String::new(), uid: 65534, gid: 65534, steps_down: true };
        let output =
            account.command(Path::new("/usr/bin/id"), Path::new("/")).arg("-G").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "65534\n");
    }

    #[test]
    fn folder_that_the_user_may_not_enter_is_named_with_the_fix() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root steps down to another user");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let closed = temp.path().canonicalize().unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let dir = closed.join("a/b");
        fs::create_dir_all(&dir).unwrap();
        let account =
            Account { name: "nobody".to_owned(), uid: 65534, gid: 65534, steps_down: true };

        let error = account.check_may_enter(&dir, Path::new("/bin/true")).unwrap_err().to_string();
        assert!(error.contains(&format!("may not enter {}:", closed.display())), "{error}");
        assert!(error.contains(&format!("chmod o+x {}", closed.display())), "{error}");

        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        account.check_may_enter(&dir, Path::new("/bin/true")).unwrap();
    }
}
