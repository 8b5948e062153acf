//! What every deployment has once: which object store is the one of this installation.

use super::{Error, Store};
use crate::ids::ObjectStoreId;

/// The object store that every process of the installation has to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStoreInUse {
    pub id: ObjectStoreId,
    /// The folder, and the machine that took it into use: for messages, as paths differ by machine.
    pub place: String,
}

impl Store {
    /// None: no process has told yet.
    pub async fn object_store(&self) -> Result<Option<ObjectStoreInUse>, Error> {
        let row = sqlx::query!("select object_store_id, object_store_place from installation")
            .fetch_one(&self.pool)
            .await?;
        Ok(row.object_store_id.map(|id| ObjectStoreInUse {
            id: ObjectStoreId::from_uuid(id),
            place: row.object_store_place.unwrap_or_default(),
        }))
    }

    /// Makes this one the installation's, unless it has one already; the first of several processes wins.
    /// Returns the one that it is.
    pub async fn adopt_object_store(
        &self,
        id: ObjectStoreId,
        place: &str,
    ) -> Result<ObjectStoreInUse, Error> {
        sqlx::query!(
            "update installation set object_store_id = $1, object_store_place = $2
             where object_store_id is null",
            id.uuid(),
            place
        )
        .execute(&self.pool)
        .await?;
        let adopted = self.object_store().await?;
        adopted.ok_or_else(|| Error::Corrupt("the installation lost its object store".to_owned()))
    }
}
