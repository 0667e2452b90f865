/** The default of ASKONCE_LEASE_SECONDS. */
export const leaseMs = 6_000
