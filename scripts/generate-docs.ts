import { writeFileSync } from 'node:fs'
import { generatedDocs } from './generated-docs.ts'

for (const { path, is, shouldBe } of generatedDocs('.')) {
  if (is !== shouldBe) writeFileSync(path, shouldBe)
  console.log(`${is === shouldBe ? 'unchanged' : 'written'}: ${path}`)
}
