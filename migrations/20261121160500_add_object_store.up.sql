-- Which object store holds the file outputs of this installation, and where it was when it was taken into use:
-- every process has to use this one. Null: the next start tells.
alter table installation
    add column object_store_id uuid,
    add column object_store_place text;
