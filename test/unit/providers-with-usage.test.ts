import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { withUsage } from '../../packages/providers/src/with-usage.ts'

const sent = (text: string): string =>
  withUsage(Buffer.from(text), JSON.parse(text) as Record<string, unknown>).toString()
const asked = '"stream_options":{"include_usage":true}'

describe('a streamed chat completion asks for its usage', () => {
  test.each([
    ['absent', '{"stream":true}', `{${asked},"stream":true}`],
    ['no members at all', '{ }', `{${asked} }`],
    ['null', '{"stream_options": null ,"a":1}', '{"stream_options": {"include_usage":true} ,"a":1}'],
    ['false', '{"stream_options":false}', `{${asked}}`],
    ['an empty object', '{"stream_options":{ }}', '{"stream_options":{"include_usage":true }}'],
    [
      'an object without the member',
      '{"stream_options":{"include_obfuscation":false}}',
      '{"stream_options":{"include_usage":true,"include_obfuscation":false}}',
    ],
    [
      'the member is false',
      '{"stream_options":{"x":[1,"]}"],"include_usage" : false }}',
      '{"stream_options":{"x":[1,"]}"],"include_usage" : true }}',
    ],
    ['the member is null', '{"stream_options":{"include_usage":null}}', `{${asked}}`],
    ['an escaped name', '{"stream_\\u006fptions":null}', '{"stream_\\u006fptions":{"include_usage":true}}'],
    [
      'white space, exact numbers, escapes and the same text elsewhere',
      ' {\n "seed": 12345678901234567890, "top_p": 1.0e0, "user": "\\u00e9 \\"stream_options\\":null", "tools":[{"stream_options":null}],\n "stream_options" : {"include_usage":0}, "n" : 2 }',
      ' {\n "seed": 12345678901234567890, "top_p": 1.0e0, "user": "\\u00e9 \\"stream_options\\":null", "tools":[{"stream_options":null}],\n "stream_options" : {"include_usage":true}, "n" : 2 }',
    ],
  ])('%s', (_, given, expected) => {
    expect(sent(given)).toBe(expected)
  })

  test.each([
    ['it asks already', '{ "stream_options": {"include_usage" : true} }'],
    ['a list, which the provider refuses', '{"stream_options":[]}'],
    ['a text, which the provider refuses', '{"stream_options":"yes"}'],
  ])('%s: sent as it is', (_, given) => {
    expect(sent(given)).toBe(given)
  })

  test('not UTF-8: sent as it is', () => {
    const bytes = Buffer.concat([Buffer.from('{"user":"'), Buffer.from([0xff]), Buffer.from('"}')])
    expect(withUsage(bytes, { user: '\uFFFD' })).toBe(bytes)
  })

  test('whatever the request is, it says the same and asks', () => {
    const options = fc.oneof(
      fc.constant(null),
      fc.constant(false),
      fc.record({ include_usage: fc.jsonValue(), other: fc.jsonValue() }, { requiredKeys: [] }),
    )
    const requests = fc
      .tuple(fc.dictionary(fc.string(), fc.jsonValue()), fc.option(options, { nil: undefined }), fc.nat(2))
      .map(([members, stream_options, indent]) => ({
        json: JSON.parse(JSON.stringify({ ...members, stream_options })) as Record<string, unknown>,
        indent,
      }))
    fc.assert(
      fc.property(requests, ({ json, indent }) => {
        const { stream_options: before, ...others } = json
        const { stream_options: after, ...same } = JSON.parse(sent(JSON.stringify(json, null, indent))) as typeof json
        expect(same).toEqual(others)
        expect(after).toEqual({ ...(before as object | null), include_usage: true })
      }),
    )
  })
})
