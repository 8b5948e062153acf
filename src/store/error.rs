//! What can go wrong with the database, as its callers need to tell it apart.

/// A closed list: callers decide by it, never by text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database can't be asked now, or gave up on the statement. Whether a write was committed is not
    /// known; asking again later is right.
    #[error("the database can't be asked now: {0}")]
    Unavailable(sqlx::Error),
    /// There is a row like this already.
    #[error("the row exists already ({constraint})")]
    Conflict { constraint: String },
    /// Somebody else has taken the attempt over.
    #[error("the attempt is held by somebody else")]
    Fenced,
    /// A row that can't be read, or a document that can't be written.
    #[error("a stored document can't be read: {0}")]
    Corrupt(String),
    #[error("{0}")]
    Settings(String),
    /// The schema is not one that this binary can work on.
    #[error("{0}")]
    Schema(String),
    /// A fault of ours.
    #[error("a statement failed: {0}")]
    Statement(sqlx::Error),
}

impl Error {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Conflict { .. }
            | Self::Fenced
            | Self::Corrupt(_)
            | Self::Settings(_)
            | Self::Schema(_)
            | Self::Statement(_) => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(it: sqlx::Error) -> Self {
        match &it {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(it),
            sqlx::Error::Database(error) => match error.code().as_deref() {
                Some("23505") => {
                    Self::Conflict { constraint: error.constraint().unwrap_or_default().to_owned() }
                }
                Some(code) if is_transient(code) => Self::Unavailable(it),
                _ => Self::Statement(it),
            },
            _ => Self::Statement(it),
        }
    }
}

/// By the classes of SQLSTATE: connection, authorisation, transaction rollback, no such database, resources,
/// operator intervention; and a server that is a read-only standby, or a database that takes no connections,
/// for the moment.
fn is_transient(code: &str) -> bool {
    const CLASSES: [&str; 7] = ["08", "28", "3D", "40", "53", "57", "58"];
    CLASSES.iter().any(|class| code.starts_with(class)) || matches!(code, "25006" | "55000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        assert!(Error::from(sqlx::Error::PoolTimedOut).is_transient());
        for code in
            ["57P01", "57014", "08006", "53300", "40001", "25006", "28P01", "3D000", "55000"]
        {
            assert!(is_transient(code), "{code}");
        }
        for code in ["23514", "42P01", "22P02"] {
            assert!(!is_transient(code), "{code}");
        }
    }
}
