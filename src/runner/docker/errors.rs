//! What the engine's errors mean: by HTTP status and by how far a request got, never by message text.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use bollard::errors::Error;

use super::transport::NotConnected;
use crate::runner::RunnerError;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The engine's own answer.
    Status { code: u16, message: String },
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
            Self::Status { code, message } if message.is_empty() => format!("status {code}"),
            Self::Status { message, .. } => message.trim().to_owned(),
            Self::NotSent(why) | Self::Lost(why) => why.clone(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Status { code: status_code, message }
            }
            Error::IOError { ref err }
                if err
                    .get_ref()
                    .is_some_and(<dyn std::error::Error + Send + Sync>::is::<NotConnected>) =>
            {
                Self::NotSent(err.to_string())
            }
            Error::HttpClientError { .. }
            | Error::URLEncodedError { .. }
            | Error::URLParseError { .. }
            | Error::InvalidURIError { .. } => Self::NotSent(chain(&error)),
            other => Self::Lost(chain(&other)),
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

/// A call with a limit of its own.
pub(super) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(Fault::from),
        Err(_) => Err(Fault::Lost(format!("no answer within {limit:?}"))),
    }
}

/// An error with its causes: the outermost alone often says nothing ("client error (Connect)").
fn chain(error: &Error) -> String {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio_util::task::TaskTracker;

    use super::*;

    #[test]
    fn a_status_is_kept_with_its_message() {
        let fault = Fault::from(Error::DockerResponseServerError {
            status_code: 404,
            message: "no such container: x\n".to_owned(),
        });
        assert_eq!(fault.status(), Some(404));
        assert_eq!(fault.message(), "no such container: x");
    }

    #[tokio::test]
    async fn a_refused_connection_was_not_sent_and_a_broken_one_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let host = format!("unix://{}", path.display());
        let docker = super::super::transport::connect(Some(&host), &TaskTracker::new()).unwrap();
        let fault = bounded(Duration::from_secs(5), docker.ping()).await.unwrap_err();
        assert!(matches!(fault, Fault::NotSent(_)), "{fault:?}");
        let expected =
            format!("no connection to {}: No such file or directory (os error 2)", path.display());
        assert_eq!(fault.message(), expected);

        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read(&mut [0; 1024]).await.unwrap()
        };
        let (result, read) = tokio::join!(bounded(Duration::from_secs(5), docker.ping()), server);
        let fault = result.unwrap_err();
        assert!(matches!(fault, Fault::Lost(_)), "{fault:?}");
        assert_eq!(fault.message(), "connection closed before message completed");
        assert!(read > 0);
    }
}
