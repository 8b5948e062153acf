//! What stands in the place of a secret, and the passwords in addresses.

/// Shown in place of what is secret. Sent back, it stands for what is stored.
pub const MASK: &str = "***";

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
