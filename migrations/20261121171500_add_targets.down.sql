drop table target_checks;
drop table targets;
drop sequence target_revisions;
