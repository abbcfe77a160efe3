-- What a field engineer asks in front of a machine: its service record (store A), whose it is (CRM), and what the
-- account's people have been looking at lately (store B).
-- param asset_id: string
-- param account_id: string
-- param since: timestamptz
--
-- Always one row; account columns are null when the CRM does not know the account.
-- Shape: every scan costs a fragment and every CRM scan a connection, so the account and its people come from one view
-- (crm.account_contacts, joined inside PostgreSQL) and each side is aggregated to one row before they meet. The people
-- are the build side: their ids reach the scan of the clicks as a dynamic filter. An outer join, because an account
-- whose people have been silent is still an account.
SELECT
    behaviour.name,
    behaviour.region,
    behaviour.tier,
    behaviour.acts,
    behaviour.last_act_at,
    behaviour.recent_acts,
    filter(history.entries, entry -> NOT contains(history.superseded, entry.entry_id)) AS entries
FROM (
    SELECT
        coalesce(array_agg(CAST(
            ROW(entry_id, kind, work_order_id, status, part_no, note, technician, supersedes, occurred_at)
            AS ROW(entry_id varchar, kind varchar, work_order_id varchar, status varchar, part_no varchar,
                   note varchar, technician varchar, supersedes varchar, occurred_at timestamp(6) with time zone)
        ) ORDER BY occurred_at, origin, epoch, seq), ARRAY[]) AS entries,
        coalesce(array_agg(supersedes) FILTER (WHERE supersedes <> entry_id), ARRAY[]) AS superseded
    FROM lake_a.field.service_history
    WHERE asset_id = :asset_id
) AS history
CROSS JOIN (
    SELECT
        max(people.name) AS name,
        max(people.region) AS region,
        max(people.tier) AS tier,
        count(clicks.user_id) AS acts,
        max(clicks.occurred_at) AS last_act_at,
        coalesce(max_by(CAST(
            ROW(clicks.user_id, clicks.event, clicks.object, clicks.dwell_s, clicks.occurred_at)
            AS ROW(user_id varchar, event varchar, object varchar, dwell_s double,
                   occurred_at timestamp(6) with time zone)
        ), clicks.occurred_at, 20) FILTER (WHERE clicks.user_id IS NOT NULL), ARRAY[]) AS recent_acts
    FROM (
        SELECT user_id, event, object, dwell_s, occurred_at
        FROM lake_b.behaviour.clicks
        WHERE occurred_at >= :since
    ) AS clicks
    RIGHT JOIN (
        SELECT name, region, tier, customer_id
        FROM crm.crm.account_contacts
        WHERE account_id = :account_id
    ) AS people
    ON clicks.user_id = people.customer_id
) AS behaviour
