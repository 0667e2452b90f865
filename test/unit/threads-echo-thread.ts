/** What threads.test.ts runs in a thread. */
export default function run({ text, bytes, hold }: { text: string; bytes?: ArrayBuffer; hold?: number }): string {
  if (text === 'throw') throw new Error('as asked')
  const held: string[][] = []
  for (let n = 0; n < (hold ?? 0); n += 1) held.push(Array.from({ length: 1000 }, () => `${n}`))
  return `${text} ${bytes?.byteLength ?? 0}`
}
