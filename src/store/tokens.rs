//! API tokens. Only their SHA-256 is stored: they are random, so nothing slower is needed.

use sqlx::PgConnection;

use super::{Error, Store};
use crate::ids::TokenId;

#[derive(Debug, Clone)]
pub struct NewToken {
    pub name: String,
    pub sha256: [u8; 32],
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub token: Option<TokenId>,
    pub name: String,
}

pub(super) async fn insert_if_missing(
    connection: &mut PgConnection,
    token: &NewToken,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into tokens (id, name, sha256) values ($1, $2, $3) on conflict (sha256) do nothing",
        TokenId::generate().uuid(),
        token.name,
        &token.sha256,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// The principal of a token that is valid now.
    pub async fn find_token(&self, sha256: &[u8; 32]) -> Result<Option<Principal>, Error> {
        let row = sqlx::query!(
            "select id, name from tokens
             where sha256 = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
            sha256
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|it| Principal { token: Some(TokenId::from_uuid(it.id)), name: it.name }))
    }
}
