//! What kind of value each field of the task document has, read off its description. In a form every value
//! is text, and the kind of the field says what the text stands for.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::api::v1::tasks::document::TaskSpec;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Whole,
    Bool,
    /// One text, or a list of texts.
    Words,
    List(Box<Kind>),
    /// With these fields.
    Object(BTreeMap<String, Kind>),
    /// With any names.
    Map(Box<Kind>),
}

/// Of the task document.
pub(super) static TASK: LazyLock<Kind> = LazyLock::new(|| {
    let mut schemas = Vec::new();
    TaskSpec::schemas(&mut schemas);
    let schemas: BTreeMap<String, RefOr<Schema>> = schemas.into_iter().collect();
    kind(&TaskSpec::schema(), &schemas)
});

fn kind(schema: &RefOr<Schema>, schemas: &BTreeMap<String, RefOr<Schema>>) -> Kind {
    let schema = match schema {
        RefOr::T(it) => it,
        RefOr::Ref(Ref { ref_location, .. }) => {
            let name = ref_location.rsplit('/').next().unwrap_or_default();
            // What is not described is taken as it is written.
            return schemas.get(name).map_or(Kind::Text, |it| kind(it, schemas));
        }
    };
    match schema {
        Schema::Array(it) => match &it.items {
            ArrayItems::RefOrSchema(items) => Kind::List(Box::new(kind(items, schemas))),
            ArrayItems::False => Kind::Text,
        },
        Schema::Object(it) => match (&it.schema_type, it.additional_properties.as_deref()) {
            (SchemaType::Type(Type::Integer), _) => Kind::Whole,
            (SchemaType::Type(Type::Boolean), _) => Kind::Bool,
            (SchemaType::Type(Type::Object), Some(AdditionalProperties::RefOr(values))) => {
                Kind::Map(Box::new(kind(values, schemas)))
            }
            (SchemaType::Type(Type::Object), _) => {
                let fields = it.properties.iter();
                Kind::Object(fields.map(|(name, it)| (name.clone(), kind(it, schemas))).collect())
            }
            _ => Kind::Text,
        },
        Schema::AllOf(it) => it.items.first().map_or(Kind::Text, |it| kind(it, schemas)),
        Schema::OneOf(it) => either(&it.items, schemas),
        Schema::AnyOf(it) => either(&it.items, schemas),
        _ => Kind::Text,
    }
}

fn either(items: &[RefOr<Schema>], schemas: &BTreeMap<String, RefOr<Schema>>) -> Kind {
    let is_list = |it: &RefOr<Schema>| matches!(kind(it, schemas), Kind::List(_));
    match items {
        [only] => kind(only, schemas),
        _ if items.iter().any(is_list) => Kind::Words,
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Kind {
        let mut found = TASK.clone();
        for name in path.split('.') {
            found = match found {
                Kind::Object(mut fields) => fields.remove(name).unwrap(),
                Kind::Map(values) | Kind::List(values) => *values,
                other => panic!("{path}: {other:?} has no {name}"),
            };
        }
        found
    }

    #[test]
    fn the_kinds_of_the_task_document() {
        for (path, kind) in [
            ("image", Kind::Text),
            ("command", Kind::Words),
            ("env.any", Kind::Text),
            ("labels.any", Kind::Text),
            ("files.0.content", Kind::Text),
            ("resources.cpu", Kind::Text),
            ("resources.pids", Kind::Whole),
            ("timeouts.run", Kind::Text),
            ("platform_retries", Kind::Whole),
            ("skip_on_exit_codes", Kind::List(Box::new(Kind::Whole))),
            ("at_most_once", Kind::Bool),
            ("outputs.any.required", Kind::Bool),
            ("outputs.any.from", Kind::Text),
            ("priority", Kind::Whole),
            ("cleanup", Kind::Text),
        ] {
            assert_eq!(at(path), kind, "{path}");
        }
    }
}
