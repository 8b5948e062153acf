//! The typed sections: what each key means once it is read. Their documentation is `defaults.toml`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::read::Section;
use super::secret::SecretUrl;
use crate::domain::target::{SIMULATED, check_name, docker_host};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Api,
    Scheduler,
    Worker,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Api, Self::Scheduler, Self::Worker];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            let hint = crate::domain::spec::suggest(text, &names);
            format!("{text:?} is not one of {}{hint}", names.join(", "))
        })
    }
}

/// Whether there is a target of this name shows when the store was asked.
pub(super) fn read_target(text: &str) -> Result<String, String> {
    if text != SIMULATED {
        check_name(text)?;
    }
    Ok(text.to_owned())
}

#[derive(Debug, Clone)]
pub struct Http {
    pub listen: SocketAddr,
    /// Lower case, without ports.
    pub allowed_hosts: Vec<String>,
    /// Lower case, `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    pub body_limit: usize,
    pub header_limit: usize,
    pub max_connections: usize,
    /// 0: no limit.
    pub rate_limit: u32,
    pub rate_burst: u32,
    /// 0: no limit.
    pub failed_auth_limit: u32,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub shutdown_drain: Duration,
    pub metrics_open: bool,
}

impl Http {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: section.parsed("listen", read_address).unwrap_or(nowhere),
            allowed_hosts: section.list("allowed_hosts", read_host),
            allowed_origins: section.list("allowed_origins", read_origin),
            body_limit: section.size("body_limit", ("1Ki", "1Gi")),
            header_limit: section.size("header_limit", ("4Ki", "16Mi")),
            max_connections: section.count("max_connections", (10, 1_000_000)),
            rate_limit: section.count("rate_limit", (0, 1_000_000)),
            rate_burst: section.count("rate_burst", (0, 1_000_000)),
            failed_auth_limit: section.count("failed_auth_limit", (0, 1_000_000)),
            header_timeout: section.duration("header_timeout", SECOND, 10 * MINUTE),
            // More than the longest wait, or every wait would end in it.
            body_timeout: section.duration("body_timeout", SECOND, HOUR),
            shutdown_drain: section.duration("shutdown_drain", Duration::ZERO, HOUR),
            metrics_open: section.bool("metrics_open"),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Auth {
    pub enabled: bool,
    pub admin_token_file: Option<PathBuf>,
}

impl Auth {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        Self {
            enabled: section.bool("enabled"),
            admin_token_file: section.optional("admin_token_file", |it| Ok(PathBuf::from(it))),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Database {
    /// None: the private Postgres.
    pub url: Option<SecretUrl>,
    pub max_connections: u32,
    pub acquire_timeout: Duration,
    pub statement_timeout: Duration,
    pub idle_in_transaction_timeout: Duration,
}

impl Database {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        Self {
            url: section.optional("url", read_database_url),
            max_connections: section.count("max_connections", (2, 1_000)),
            acquire_timeout: section.duration("acquire_timeout", SECOND / 10, MINUTE),
            statement_timeout: section.duration("statement_timeout", SECOND, HOUR),
            idle_in_transaction_timeout: section.duration(
                "idle_in_transaction_timeout",
                SECOND,
                HOUR,
            ),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Docker {
    /// Whether there is a target for it.
    pub enabled: bool,
    /// With its scheme. None: the local socket.
    pub host: Option<String>,
}

impl Docker {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        Self { enabled: section.bool("enabled"), host: section.optional("host", docker_host) }
    }
}

#[derive(Debug, Clone)]
pub struct ObjectStore {
    /// Absolute. None: in the data directory.
    pub folder: Option<PathBuf>,
}

impl ObjectStore {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let absolute = |text: &str| {
            std::path::absolute(text).map_err(|error| format!("{text:?} is not a path: {error}"))
        };
        Self { folder: section.optional("folder", absolute) }
    }
}

#[derive(Debug, Clone)]
pub struct Worker {
    pub concurrency: usize,
    /// Never 0: the number of cores is filled in.
    pub starts: usize,
    pub heartbeat: Duration,
    pub lease: Duration,
    pub poll: Duration,
}

impl Worker {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            concurrency: section.count("concurrency", (1, 100_000)),
            starts: match section.count("starts", (0, 1_000)) {
                0 => 2 * cores,
                starts => starts,
            },
            heartbeat: section.duration("heartbeat", SECOND / 10, HOUR),
            lease: section.duration("lease", SECOND / 10, DAY),
            poll: section.duration("poll", SECOND / 100, MINUTE),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// 0: no limit.
    pub queued_tasks: u64,
    pub batch: usize,
    pub env_value: usize,
    pub files: usize,
    pub log: u64,
    pub output_json: usize,
    pub output_file: u64,
}

impl Limits {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        Self {
            queued_tasks: section.count("queued_tasks", (0, 1_000_000_000)),
            batch: section.count("batch", (1, 10_000)),
            env_value: section.size("env_value", ("1Ki", "128Ki")),
            files: section.size("files", ("1Ki", "1Gi")),
            log: section.size("log", ("64Ki", "1Ti")),
            output_json: section.size("output_json", ("1Ki", "64Mi")),
            output_file: section.size("output_file", ("1Ki", "5Ti")),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Logs {
    pub chunk: usize,
    pub flush: Duration,
}

impl Logs {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        Self {
            chunk: section.size("chunk", ("4Ki", "16Mi")),
            flush: section.duration("flush", SECOND / 1_000, 10 * SECOND),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Retention {
    pub tasks: Duration,
    pub idempotency_keys: Duration,
}

impl Retention {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        Self {
            tasks: section.duration("tasks", MINUTE, 36_500 * DAY),
            idempotency_keys: section.duration("idempotency_keys", MINUTE, 36_500 * DAY),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Directives that `tracing_subscriber::EnvFilter` takes.
    pub log: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Telemetry {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Self {
            log: section.parsed("log", read_filter).unwrap_or_default(),
            format: section.choice("format", &formats).unwrap_or_default(),
        }
    }
}

fn read_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| match text.strip_prefix(':') {
        Some(port) => {
            format!("{text:?} names no address: write \"0.0.0.0:{port}\" for all of them")
        }
        None => format!("{text:?} is not an address with a port: write \"127.0.0.1:7070\""),
    })
}

fn read_host(text: &str) -> Result<String, String> {
    let plain = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_host = match plain {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-' | b'_'))
        }
    };
    if is_host {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!(
            "{text:?} is not a host name: write \"runs.example.com\", without scheme and port"
        ))
    }
}

fn read_origin(text: &str) -> Result<String, String> {
    let fix = || format!("{text:?} is not an origin: write \"https://ops.example.com\"");
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or_else(fix)?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let port_is_good = port.is_none_or(|it| it.parse::<u16>().is_ok());
    if !matches!(scheme, "http" | "https") || !port_is_good || read_host(host).is_err() {
        return Err(fix());
    }
    Ok(lower)
}

/// Never quotes the text: it holds a password.
fn read_database_url(text: &str) -> Result<SecretUrl, String> {
    if ["postgres://", "postgresql://"].iter().any(|it| text.starts_with(it)) {
        Ok(SecretUrl::new(text))
    } else {
        Err("not the address of a Postgres: write \"postgres://user:password@host:5432/name\", \
             or leave it empty for a private one"
            .to_owned())
    }
}

fn read_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(format!("{text:?} is not a log filter ({error}): write for example \"info\""))
        }
    }
}
