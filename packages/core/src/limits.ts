/** Largest answer that is stored, in bytes, decoded. What the provider sends beyond it is paid for and cannot be kept. */
export const maxAnswerBytes = 256 * 1024 * 1024
