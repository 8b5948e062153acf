//! Addresses that may hold a password.

use std::fmt;

/// What stands in the place of a secret.
pub(super) const MASK: &str = "********";

/// An address that may hold a password: only [`SecretUrl::expose`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// With its password, for the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact(&self.0))
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

/// Masks the password in the user part of an address, and every parameter that is one. Text that
/// is no address stays as it is.
///
/// A password with an unescaped `/`, `?` or `#` is not a valid part of an address, but people do
/// write it: the user part goes to the last `@` there is, and hides too much rather than too little.
pub(super) fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // Parameters first: their values may hold an `@` as well.
    let rest = match rest.split_once('?') {
        None => rest.to_owned(),
        Some((path, query)) => {
            let parameters: Vec<_> = query.split('&').map(redact_parameter).collect();
            format!("{path}?{}", parameters.join("&"))
        }
    };
    let user = rest.rsplit_once('@').and_then(|(user, rest)| Some((user.split_once(':')?.0, rest)));
    match user {
        None => format!("{scheme}://{rest}"),
        Some((name, rest)) => format!("{scheme}://{name}:{MASK}@{rest}"),
    }
}

fn redact_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => {
            format!("{name}={MASK}")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        for (url, shown) in [
            ("postgres://u:pw@db:5432/x", "postgres://u:********@db:5432/x"),
            ("postgres://u:p@w/o?rd#@db/x", "postgres://u:********@db/x"),
            ("postgres://db/x?user=u&password=pw", "postgres://db/x?user=u&password=********"),
            ("postgres://db/x?sslPassword=pw&a=b", "postgres://db/x?sslPassword=********&a=b"),
            ("postgres:///x?user=u&password=p:q@w", "postgres:///x?user=u&password=********"),
            ("postgres://u@db/x", "postgres://u@db/x"),
            ("127.0.0.1:7070", "127.0.0.1:7070"),
        ] {
            assert_eq!(redact(url), shown);
            assert_eq!(SecretUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(url)), format!("{shown:?}"));
        }
    }
}
