//! What the API server's errors mean: by status and by how far a request got.

use std::error::Error as StdError;

use kube::Error;
use kube::client::AuthError;
use rustls::CertificateError;

use crate::runner::RunnerError;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The API server's own answer.
    Status { code: u16, reason: String, message: String },
    /// The request never left.
    NotSent(String),
    /// It left, and no answer came that could be understood.
    Lost(String),
}

impl Fault {
    pub(super) const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::NotSent(_) | Self::Lost(_) => None,
        }
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::Status { code, message, .. } if message.is_empty() => format!("status {code}"),
            Self::Status { message, .. } => message.trim().to_owned(),
            Self::NotSent(why) | Self::Lost(why) => why.clone(),
        }
    }

    /// With the status, for those who ask for no object in particular.
    pub(super) fn answer(&self) -> String {
        match self {
            Self::Status { code: 401, .. } => {
                "it answered 401: it does not take the credentials, or not any more: give new ones"
                    .to_owned()
            }
            Self::Status { code, .. } => format!("it answered {code}: {}", self.message()),
            Self::NotSent(_) | Self::Lost(_) => self.message(),
        }
    }

    /// The object is there already. A conflict of another kind has another reason.
    pub(super) fn already_exists(&self) -> bool {
        matches!(self, Self::Status { code: 409, reason, .. } if reason == "AlreadyExists")
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = chain(&error);
        match error {
            Error::Api(status) => {
                Self::Status { code: status.code, reason: status.reason, message: status.message }
            }
            Error::Service(ref cause)
                if cause
                    .downcast_ref::<hyper_util::client::legacy::Error>()
                    .is_none_or(hyper_util::client::legacy::Error::is_connect) =>
            {
                // Another cause than the connection is a layer of ours: credentials could not be had.
                Self::NotSent(message)
            }
            Error::BuildRequest(_) | Error::Auth(_) | Error::HttpError(_) => Self::NotSent(message),
            _ => Self::Lost(message),
        }
    }
}

impl From<Fault> for RunnerError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault.answer())
    }
}

/// An error with its causes, each said once, and what to do where that is known. What an exec plugin printed is
/// left out: it prints credentials.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut fix = None;
    for cause in causes(error) {
        if let Some(said) = cause.downcast_ref().and_then(of_a_plugin) {
            return said;
        }
        fix = fix.or_else(|| cause.downcast_ref().and_then(fix_of_tls));
        // Says no more than that it is one of ours, and that it could not connect.
        if matches!(cause.downcast_ref(), Some(Error::Service(_))) || is_connect(cause) {
            continue;
        }
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    if let Some(fix) = fix {
        text.push_str("; ");
        text.push_str(fix);
    }
    if text.is_empty() { error.to_string() } else { text }
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let it = next?;
        // An error of I/O passes over what it is made of.
        let inner = it.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => it.source(),
        };
        Some(it)
    })
}

fn is_connect(error: &(dyn StdError + 'static)) -> bool {
    let it = error.downcast_ref::<hyper_util::client::legacy::Error>();
    it.is_some_and(|it| it.is_connect() && it.source().is_some())
}

fn of_a_plugin(error: &AuthError) -> Option<String> {
    const NO: &str = "the exec plugin of the kubeconfig";
    Some(match error {
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let said = said.trim().lines().next_back().unwrap_or_default();
            let said = if said.is_empty() { "" } else { &format!(": {said}") };
            format!("{NO} failed ({}){said}", out.status)
        }
        AuthError::AuthExecParse(_) => {
            format!("{NO} printed something else than an ExecCredential")
        }
        AuthError::AuthExecStart(why) => {
            format!("{NO} can't be started: {why}; it has to be on the machines of the workers")
        }
        AuthError::ExecPluginFailed => format!("{NO} printed no credential"),
        _ => return None,
    })
}

fn fix_of_tls(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    Some(match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not by the authority in \"ca\" (or in the kubeconfig): give the one that signed it"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another address: use one that is in it"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has run out: renew it, or set the clock of this machine"
        }
        // Certificates of version 1 are among them.
        _ => "make a new certificate, of X.509 version 3",
    })
}
