"""Who is a device: invitations, certificates, their renewal and their revocation."""
