"""The CRM mirror: the current state of every CRM record in PostgreSQL, kept from `fieldlake.crm.changes`.

`merge` says what a record is after its changes, in whatever order they come; `kinds` which table and columns it has;
`follower` applies batches of the log in one transaction each, together with the place on the log.
"""
