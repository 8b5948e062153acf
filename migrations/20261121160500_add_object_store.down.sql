alter table installation drop column object_store_id, drop column object_store_place;
