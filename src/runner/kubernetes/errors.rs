//! What the API server's errors mean: by status and by how far a request got.

use kube::Error;

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
        Self::Unavailable(match &fault {
            Fault::Status { code, .. } => format!("it answered {code}: {}", fault.message()),
            Fault::NotSent(_) | Fault::Lost(_) => fault.message(),
        })
    }
}

/// An error with its causes, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
