/** Largest answer that is stored, in bytes, decoded. What the provider sends beyond it is paid for and cannot be kept. */
export const maxAnswerBytes = 256 * 1024 * 1024

/** How long requests under way may go on when an API is stopped, milliseconds. */
export const apiDrainMs = 10_000
