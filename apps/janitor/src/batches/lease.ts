/** How long a batch belongs to a driver that says nothing. A driver renews it with each group of lines. */
export const leaseMs = 15_000
