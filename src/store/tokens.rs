//! API tokens. Only their SHA-256 is stored: they are random, so nothing slower is needed.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{Error, Store, opt_jiff, opt_sql};
use crate::ids::TokenId;

/// A token as it may be shown: without itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    pub token: TokenId,
    pub name: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

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
    /// When the token is none any more.
    pub expires_at: Option<Timestamp>,
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
    pub async fn create_token(
        &self,
        token: &NewToken,
        expires_at: Option<Timestamp>,
    ) -> Result<TokenRecord, Error> {
        let id = TokenId::generate();
        let created_at = sqlx::query_scalar!(
            "insert into tokens (id, name, sha256, expires_at) values ($1, $2, $3, $4) returning created_at",
            id.uuid(),
            token.name,
            &token.sha256,
            opt_sql(expires_at) as _,
        )
        .fetch_one(&self.pool)
        .await?;
        let (name, created_at) = (token.name.clone(), created_at.to_jiff());
        Ok(TokenRecord { token: id, name, created_at, expires_at })
    }

    /// The tokens that are valid now, the newest first.
    pub async fn list_tokens(&self) -> Result<Vec<TokenRecord>, Error> {
        let rows = sqlx::query!(
            "select id, name, created_at, expires_at from tokens
             where revoked_at is null and (expires_at is null or expires_at > now()) order by id desc"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| TokenRecord {
                token: TokenId::from_uuid(it.id),
                name: it.name,
                created_at: it.created_at.to_jiff(),
                expires_at: opt_jiff(it.expires_at),
            })
            .collect())
    }

    /// False: there is no such token.
    pub async fn revoke_token(&self, token: TokenId) -> Result<bool, Error> {
        let revoked = sqlx::query!(
            "update tokens set revoked_at = coalesce(revoked_at, now()) where id = $1",
            token.uuid()
        )
        .execute(&self.pool)
        .await?;
        Ok(revoked.rows_affected() > 0)
    }

    /// The principal of a token that is valid now.
    pub async fn find_token(&self, sha256: &[u8; 32]) -> Result<Option<Principal>, Error> {
        let row = sqlx::query!(
            "select id, name, expires_at from tokens
             where sha256 = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
            sha256
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|it| Principal {
            token: Some(TokenId::from_uuid(it.id)),
            name: it.name,
            expires_at: opt_jiff(it.expires_at),
        }))
    }
}
