import type { IncomingMessage } from 'node:http'
import { Busboy, type BusboyFileStream, type BusboyHeaders, type BusboyInstance } from '@fastify/busboy'
import { Problem } from '../../problem.ts'

/** Fields of a form, and their size: an upload has a handful of short ones. */
const maxFields = 20
const maxFieldBytes = 1_024

export interface FormReader {
  maxFileBytes: number
  /** Takes the content of the part `file`, at its own pace. Called at most once. */
  onFile: (content: AsyncIterable<Buffer>, filename: string) => Promise<void>
}

/**
 * Reads a `multipart/form-data` body: the part `file`, and fields, in any order. Resolves with the fields when the body was whole.
 * @throws Problem for a body that is no such form, is cut off, or holds a file that is too large; or what `onFile` throws
 */
export async function readForm(request: IncomingMessage, reader: FormReader): Promise<ReadonlyMap<string, string>> {
  const form = open(request, reader.maxFileBytes)
  const fields = new Map<string, string>()
  let storing: Promise<void> | null = null
  let content: BusboyFileStream | null = null

  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => {
      request.unpipe(form)
      form.destroy()
      // What is still on its way is read and thrown away: a client that is cut off while it sends does not read the answer.
      request.resume()
      content?.destroy()
      // Only when nothing is being written any more: then what was written can be deleted.
      void Promise.allSettled([storing]).then(() => {
        reject(error instanceof Error ? error : new Error('the form could not be read'))
      })
    }
    form.on('file', (name: string, stream: BusboyFileStream, filename: string | undefined) => {
      // Its end without the end of the part is told by the form.
      stream.on('error', () => undefined)
      if (name !== 'file' || storing !== null) {
        stream.resume()
        return fail(refuse(name === 'file' ? 'file: must be sent once' : 'only the part `file` may be a file', 'file'))
      }
      stream.on('limit', () => {
        fail(
          new Problem('payload_too_large', `file: must have at most ${reader.maxFileBytes} bytes`, { param: 'file' }),
        )
      })
      content = stream
      storing = reader.onFile(stream as AsyncIterable<Buffer>, filename ?? '')
      storing.catch(fail)
    })
    form.on('field', (name: string, value: string, _nameCut: boolean, cut: boolean) => {
      if (fields.has(name)) return fail(refuse(`${name.slice(0, 100)}: must be sent once`, name.slice(0, 100)))
      if (cut) return fail(refuse(`${name.slice(0, 100)}: is too long`, name.slice(0, 100)))
      fields.set(name, value)
    })
    form.on('fieldsLimit', () => fail(refuse(`the form has more than ${maxFields} fields`, '')))
    form.on('partsLimit', () => fail(refuse('the form has too many parts', '')))
    form.on('error', () => fail(refuse('the body is not a whole multipart form: it is malformed, or was cut off', '')))
    form.on('finish', () => {
      if (storing === null) return fail(refuse('file: is missing', 'file'))
      storing.then(() => resolve(fields), fail)
    })
    request.on('aborted', () => fail(refuse('the body was cut off', '')))
    request.on('error', fail)
    request.pipe(form)
  })
}

function open(request: IncomingMessage, maxFileBytes: number): BusboyInstance {
  try {
    return new Busboy({
      headers: request.headers as BusboyHeaders,
      limits: {
        fileSize: maxFileBytes,
        fields: maxFields,
        fieldSize: maxFieldBytes,
        parts: maxFields + 2,
        headerPairs: 20,
      },
    })
  } catch {
    request.resume()
    throw new Problem('invalid_request', 'Content-Type: must be multipart/form-data with a boundary', {
      param: 'Content-Type',
    })
  }
}

function refuse(detail: string, param: string): Problem {
  return new Problem('invalid_request', detail, { param })
}
