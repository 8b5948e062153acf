//! What stands in the place of a secret, and the passwords in addresses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Shown in place of what is secret. Sent back, it stands for what is stored.
pub const MASK: &str = "***";

/// A credential. It is stored as it is, and no debug form shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// For the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// An address that may hold a password: the debug form has none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretAddress(String);

impl SecretAddress {
    /// With its password, for the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Without it, for everybody else.
    pub fn shown(&self) -> String {
        without_password(&self.0)
    }
}

impl<T: Into<String>> From<T> for SecretAddress {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for SecretAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

/// The address without its password. The user part goes to the last `@`: it hides too much rather than too little.
pub(super) fn without_password(url: &str) -> String {
    let masked = url.split_once("://").and_then(|(scheme, rest)| {
        let (user, host) = rest.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:{MASK}@{host}"))
    });
    masked.unwrap_or_else(|| url.to_owned())
}

/// The user part and the rest of an address with a user.
pub(super) fn has_user(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| {
        rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
    })
}
