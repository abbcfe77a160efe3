"""What the canned queries need inside the CRM's database, over the views of the mirror."""

from typing import Final

# One scan for "whose is it, and who are its people": joined where the rows are, since each scan of PostgreSQL costs the
# engine a connection and a fragment. An account without people is one row with a null customer.
ACCOUNT_CONTACTS_VIEW_SQL: Final = """\
CREATE OR REPLACE VIEW crm.account_contacts AS
SELECT account.account_id, account.name, account.region, account.tier, contact.customer_id
FROM crm.accounts AS account
LEFT JOIN crm.contacts AS contact
ON contact.account_id = account.account_id AND contact.system = account.system AND contact.tenant = account.tenant;
"""

# The engine remembers for a minute that a table was missing; this lets it look again at once.
FORGET_MISSING_SQL: Final = "CALL crm.system.flush_metadata_cache()"
