//! Tokens: who may call. Each may do everything.

pub(in crate::api) mod create_token;
pub(in crate::api) mod list_tokens;
pub(in crate::api) mod revoke_token;
