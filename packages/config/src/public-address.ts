import { isIP } from 'node:net'
import { readHttpUrl, type Reading } from './readers.ts'
import { variable } from './variable.ts'

/** How the paths of this API begin: a prefix that begins so could not be told from them. */
export const ownPaths: readonly string[] = [
  'v1',
  'openai',
  'anthropic',
  'docs',
  'healthz',
  'readyz',
  'metrics',
  'openapi.json',
]

/** The address by which clients reach the API, as it stands in links: no trailing slash, and a path in plain characters only. */
function readPublicUrl(given: string): Reading<string> {
  const read = readHttpUrl(given)
  if (!('value' in read)) return read
  const { origin, pathname } = new URL(read.value)
  const path = pathname === '/' ? '' : pathname
  if (!/^(?:\/[A-Za-z0-9._~-]+)*$/.test(path)) {
    return { expected: 'an address whose path has letters, digits and - . _ ~ only, and no doubled slash' }
  }
  const first = path.split('/')[1] ?? ''
  if (ownPaths.includes(first)) {
    return { expected: `an address whose path does not begin with /${first}: so do paths of the API itself` }
  }
  return { value: origin + path }
}

const namedNetworks = ['loopback', 'linklocal', 'uniquelocal']

/** Addresses, networks, or names of networks, with commas between. A network of everybody is refused: then nobody's word counts. */
function readNetworks(given: string): Reading<readonly string[]> {
  const networks = given.split(',').map((network) => network.trim())
  if (networks.every(isNetwork)) return { value: networks }
  return {
    expected: `IP addresses, networks such as 10.0.0.0/8, or ${namedNetworks.join(', ')}, with commas between`,
  }
}

function isNetwork(text: string): boolean {
  if (namedNetworks.includes(text)) return true
  const [address = '', bits, ...rest] = text.split('/')
  const family = address.includes('%') ? 0 : isIP(address)
  if (family === 0 || rest.length > 0) return false
  if (bits === undefined) return true
  return /^[1-9]\d{0,2}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128)
}

/** What the API has to be told when a proxy stands in front of it. */
export const publicAddress = {
  ASKONCE_PUBLIC_URL: variable(
    {
      unset: 'none: links begin at the root of the host that was asked, those of the pages are relative',
      accepts: 'http(s) address, with a path where a proxy adds one',
      meaning:
        'The address by which clients reach the API, where a proxy stands in front of it: for `Location`, `results_url`, the OpenAPI document and its page. Its path may arrive with requests or be taken off by the proxy. See [operations](operations.md#behind-a-proxy).',
      example: 'https://host.example.com/askonce',
    },
    null,
    readPublicUrl,
  ),
  ASKONCE_TRUST_PROXY: variable(
    {
      unset: 'nobody',
      accepts: 'IP addresses, networks, `loopback`, `linklocal` or `uniquelocal`, with commas between',
      meaning:
        'Proxies whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are believed: the log then has the addresses of clients (`client`) instead of theirs. From any other address these headers change nothing.',
      example: '10.0.0.0/8,loopback',
    },
    [],
    readNetworks,
  ),
}
