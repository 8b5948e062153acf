//! Schemas of documents, for editors and programs that make them.

pub(in crate::api) mod get_workflow_schema;
