"""Key, request and first enrolment of a device: short-lived processes, so that the agent's memory stays small."""
