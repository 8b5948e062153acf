//! The settings that commands of the service take as flags.

use std::path::PathBuf;

use super::client::Options;
use crate::config::{Config, Faults, Flag, Sources};

/// For every command that reads the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ServiceArgs {
    #[arg(long, value_name = "FILE")]
    #[arg(
        help = "File with settings; `supercargo config` prints the reference [env: SUPERCARGO_CONFIG]"
    )]
    config: Option<PathBuf>,

    #[arg(long, value_name = "URL")]
    #[arg(
        help = "Postgres to use [default: a private one in the data directory] [env: DATABASE_URL]"
    )]
    database_url: Option<String>,
}

/// For the commands that know all flags of the service.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// What this process does [default: all of api,scheduler,worker]
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    roles: Option<Vec<String>>,

    /// Take requests without a token; only on a loopback address
    #[arg(long)]
    no_auth: bool,
}

impl ServiceArgs {
    pub(crate) fn load(&self, options: &Options) -> Result<Config, Faults> {
        Config::load(&self.sources(options))
    }

    fn sources(&self, options: &Options) -> Sources {
        let mut sources = Sources::of_process();
        sources.file.clone_from(&self.config);
        let data_dir = options.data_dir.as_ref().map(|it| it.to_string_lossy().into_owned());
        sources.flags.extend(data_dir.map(|it| Flag::new("data_dir", "--data-dir", it)));
        let database_url = self.database_url.clone();
        sources
            .flags
            .extend(database_url.map(|it| Flag::new("database.url", "--database-url", it)));
        sources
    }
}

impl ServeArgs {
    pub(crate) fn load(&self, options: &Options) -> Result<Config, Faults> {
        let mut sources = self.service.sources(options);
        let listen = self.listen.clone();
        sources.flags.extend(listen.map(|it| Flag::new("http.listen", "--listen", it)));
        let roles = self.roles.clone();
        sources.flags.extend(roles.map(|it| Flag::new("roles", "--roles", it)));
        if self.no_auth {
            sources.flags.push(Flag::new("auth.enabled", "--no-auth", false));
        }
        Config::load(&sources)
    }
}
