//! Where the service is, and the token for it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde_json::Value;

use super::Error;
use crate::config::{Env, default_data_dir, is_root};

const HEADING: &str = "Service";
const DEFAULT_URL: &str = "http://127.0.0.1:7070";
/// Written by the service when it listens.
const SERVICE_FILE: &str = "service.json";
const TOKEN_FILE: &str = "admin.token";

/// How to reach a service. Every command that speaks to one takes these.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Options {
    /// Address of the service [default: the one of the data directory]
    #[arg(long, global = true, value_name = "URL", help_heading = HEADING)]
    #[arg(env = "SUPERCARGO_URL", hide_env_values = true)]
    pub(crate) url: Option<String>,

    /// Token for the service [default: the administrator's, on this machine]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = HEADING)]
    #[arg(env = "SUPERCARGO_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Token>,

    /// Where the service keeps its data
    #[arg(long, global = true, value_name = "DIR", help_heading = HEADING)]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Options {
    /// The data directory that somebody named.
    fn named_data_dir(&self, env: &Env) -> Option<PathBuf> {
        let named = env.get("SUPERCARGO__DATA_DIR").filter(|it| !it.is_empty());
        self.data_dir.clone().or_else(|| named.map(PathBuf::from))
    }
}

/// Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Who named the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UrlFrom {
    /// A flag or the environment.
    Named,
    /// The file that the service writes.
    ServiceFile,
    Default,
}

/// Where the token came from, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenFrom {
    Named,
    File(PathBuf),
    /// The file is there, and this user may not read it.
    Unreadable(PathBuf),
    /// The service is on another machine: a token of this one is not sent there.
    Elsewhere,
    Nowhere(Option<PathBuf>),
}

#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    pub(crate) url_from: UrlFrom,
    pub(crate) token: Option<Token>,
    pub(crate) token_from: TokenFrom,
}

impl Endpoint {
    pub(crate) fn find(options: &Options) -> Result<Self, Error> {
        Self::find_with(options, &Env::of_process(), is_root())
    }

    /// The address without what may be secret in it.
    pub(crate) fn shown(&self) -> String {
        let mut url = self.url.clone();
        // An address with a host takes both.
        url.set_password(None).unwrap_or_default();
        url.set_username("").unwrap_or_default();
        url.as_str().trim_end_matches('/').to_owned()
    }

    fn find_with(options: &Options, env: &Env, root: bool) -> Result<Self, Error> {
        let named_dir = options.named_data_dir(env);
        let data_dir = named_dir.clone().or_else(|| default_data_dir(env, root));
        let named = options.url.as_deref().filter(|it| !it.is_empty());
        let (url, url_from) = match (named, data_dir.as_deref().and_then(read_service_file)) {
            (Some(url), _) => (url.to_owned(), UrlFrom::Named),
            (None, Some(url)) => (url, UrlFrom::ServiceFile),
            (None, None) => match named_dir {
                // What answers at the default address would be another service.
                Some(data_dir) => return Err(Error::NoServiceFile(data_dir.join(SERVICE_FILE))),
                None => (DEFAULT_URL.to_owned(), UrlFrom::Default),
            },
        };
        let url = parse_url(&url)?;
        let (token, token_from) = match options.token.as_ref().filter(|it| !it.0.is_empty()) {
            Some(token) => (Some(token.clone()), TokenFrom::Named),
            None if !is_loopback(&url) => (None, TokenFrom::Elsewhere),
            None => read_token(data_dir.map(|it| it.join(TOKEN_FILE))),
        };
        Ok(Self { url, url_from, token, token_from })
    }
}

fn parse_url(text: &str) -> Result<Url, Error> {
    let fix =
        || Error::Usage(format!("{text:?} is not an address: write \"http://127.0.0.1:7070\""));
    let mut url = Url::parse(text).map_err(|_| fix())?;
    // As the service says where its API is.
    let base = url.path().trim_end_matches('/').strip_suffix("/api/v1").map(|it| format!("{it}/"));
    if let Some(base) = base {
        url.set_path(&base);
    }
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(fix()) }
}

/// The address of the service that runs in this data directory, or last did.
fn read_service_file(data_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join(SERVICE_FILE)).ok()?;
    let file: Value = serde_json::from_str(&text).ok()?;
    Some(file.get("url")?.as_str()?.to_owned())
}

fn read_token(path: Option<PathBuf>) -> (Option<Token>, TokenFrom) {
    let Some(path) = path else { return (None, TokenFrom::Nowhere(None)) };
    match std::fs::read_to_string(&path) {
        Ok(text) => (Some(Token::from(text.as_str())), TokenFrom::File(path)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            (None, TokenFrom::Unreadable(path))
        }
        Err(_) => (None, TokenFrom::Nowhere(Some(path))),
    }
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|it| it.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(options: &Options, env: &[(&str, &str)]) -> Endpoint {
        Endpoint::find_with(options, &Env::from_vars(env.iter().copied()), false).unwrap()
    }

    fn data_dir() -> (tempfile::TempDir, Options) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(SERVICE_FILE),
            r#"{"url": "http://127.0.0.1:81", "pid": 1}"#,
        )
        .unwrap();
        std::fs::write(dir.path().join(TOKEN_FILE), "t0\n").unwrap();
        let options = Options { data_dir: Some(dir.path().to_owned()), ..Options::default() };
        (dir, options)
    }

    #[test]
    fn the_local_service_and_its_token_are_found() {
        let (dir, options) = data_dir();
        let found = find(&options, &[]);
        assert_eq!(
            (found.url.as_str(), found.url_from),
            ("http://127.0.0.1:81/", UrlFrom::ServiceFile)
        );
        assert_eq!(found.token.unwrap().expose(), "t0");
        assert_eq!(found.token_from, TokenFrom::File(dir.path().join(TOKEN_FILE)));

        let by_env = find(
            &Options::default(),
            &[("SUPERCARGO__DATA_DIR", dir.path().to_str().unwrap()), ("HOME", "/nowhere")],
        );
        assert_eq!(by_env.url.as_str(), "http://127.0.0.1:81/");
    }

    #[test]
    fn what_is_named_wins() {
        let (_dir, options) = data_dir();
        let named = Options {
            url: Some("https://runs.example/base/".to_owned()),
            token: Some("t1".into()),
            ..options
        };
        let found = find(&named, &[]);
        assert_eq!((found.url.host_str(), found.url_from), (Some("runs.example"), UrlFrom::Named));
        assert_eq!(found.token.unwrap().expose(), "t1");
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let url = Some("https://jo:hunter2@runs.example/base/".to_owned());
        let found = find(&Options { url, ..Options::default() }, &[]);
        assert_eq!(found.shown(), "https://runs.example/base");
        for (given, base) in [
            ("http://127.0.0.1:7070/api/v1", "http://127.0.0.1:7070/"),
            ("https://runs.example/base/api/v1/", "https://runs.example/base/"),
        ] {
            assert_eq!(parse_url(given).unwrap().as_str(), base);
        }
    }

    #[test]
    fn the_local_token_is_not_sent_to_another_machine() {
        let (_dir, options) = data_dir();
        for (url, sent) in [
            ("http://localhost:7070", true),
            ("http://[::1]:7070", true),
            ("http://127.0.0.2", true),
            ("http://10.0.0.1:7070", false),
            ("https://localhost.example", false),
        ] {
            let found = find(&Options { url: Some(url.to_owned()), ..options.clone() }, &[]);
            assert_eq!(found.token.is_some(), sent, "{url}");
        }
    }

    #[test]
    fn with_nothing_at_hand_the_default_address_is_tried() {
        let found = find(
            &Options { url: Some(String::new()), token: Some("".into()), data_dir: None },
            &[("HOME", "/nowhere")],
        );
        assert_eq!(
            (found.url.as_str(), found.url_from),
            ("http://127.0.0.1:7070/", UrlFrom::Default)
        );
        let path = PathBuf::from("/nowhere/.local/state/supercargo/admin.token");
        assert_eq!(found.token_from, TokenFrom::Nowhere(Some(path)));
        assert!(found.token.is_none());
    }

    #[test]
    fn a_data_directory_without_a_service_is_not_the_default_address() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { data_dir: Some(dir.path().to_owned()), ..Options::default() };
        let found = Endpoint::find_with(&options, &Env::default(), false);
        let Err(error @ Error::NoServiceFile(_)) = found else { panic!("{found:?}") };
        assert_eq!(error.exit().code(), 5);
        let env = Env::from_vars([("SUPERCARGO__DATA_DIR", dir.path())]);
        let found = Endpoint::find_with(&Options::default(), &env, false);
        assert!(matches!(found, Err(Error::NoServiceFile(_))), "{found:?}");
        let url = Some("http://h".to_owned());
        assert_eq!(find(&Options { url, ..options }, &[]).url_from, UrlFrom::Named);
    }

    #[test]
    fn an_address_needs_a_scheme_and_a_host() {
        for url in ["127.0.0.1:7070", "localhost", "ftp://a", "unix:/run/x", "http://"] {
            let options = Options { url: Some(url.to_owned()), ..Options::default() };
            let found = Endpoint::find_with(&options, &Env::default(), false);
            assert!(matches!(found, Err(Error::Usage(_))), "{url}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        assert!(!format!("{:?}", Token::from("hunter2")).contains("hunter2"));
    }
}
