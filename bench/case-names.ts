export const caseNames = [
  'submit',
  'bulk',
  'replay',
  'read',
  'drain',
  'wait',
  'in-flight',
  'widen',
  'recover',
  'cost',
  'age',
  'sweep',
] as const
export type CaseName = (typeof caseNames)[number]
