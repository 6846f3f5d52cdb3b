// The thread follows its end while the reader is there, and else offers the way back.

const conversation = document.querySelector('.conversation')
const thread = document.querySelector('[data-thread]')
const latest = document.querySelector('[data-latest]')
const NEAR = 80
let following = true

const isAtEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - NEAR

function toEnd(behavior = 'instant') {
  scrollTo({ top: document.documentElement.scrollHeight, behavior })
}

function drawPlace() {
  conversation.toggleAttribute('data-away', !following)
}

let lastY = scrollY
addEventListener('scroll', () => {
  if (isAtEnd()) following = true
  else if (scrollY < lastY) following = false
  lastY = scrollY
  drawPlace()
}, { passive: true })

// The thread grows by what is written, the dock by what is typed.
const growth = new ResizeObserver(() => {
  if (following) toEnd()
  drawPlace()
})
growth.observe(thread)
growth.observe(document.querySelector('.dock'))

// Another version takes the place of the one that is shown: the way back to it stays where it is.
let turned = null
document.addEventListener('htmx:beforeSwap', event => {
  const link = event.detail.requestConfig?.elt
  if (link?.matches?.('[data-branch]')) turned = { id: link.id, top: link.getBoundingClientRect().top }
})
document.addEventListener('htmx:afterSwap', event => {
  if (!turned || event.detail.target !== thread) return
  following = false
  const link = document.getElementById(turned.id)
  if (link) scrollBy({ top: link.getBoundingClientRect().top - turned.top, behavior: 'instant' })
})

// One's own message is always followed.
new MutationObserver(changes => {
  if (turned) return void (turned = null)
  const added = changes.flatMap(change => [...change.addedNodes])
  const isOwn = node => node.matches?.('.message--user') && node.nextElementSibling === thread.lastElementChild
  if (!added.some(isOwn)) return
  following = true
  toEnd()
}).observe(thread, { childList: true })

// Earlier messages come in above; what was read stays where it is.
let below = 0
const isEarlier = event => event.detail.target?.matches?.('.conversation__more')
document.addEventListener('htmx:beforeSwap', event => {
  if (isEarlier(event)) below = document.documentElement.scrollHeight - scrollY
})
document.addEventListener('htmx:afterSwap', event => {
  if (isEarlier(event)) scrollTo({ top: document.documentElement.scrollHeight - below, behavior: 'instant' })
})

latest.addEventListener('click', event => {
  event.preventDefault()
  following = true
  toEnd(matchMedia('(prefers-reduced-motion: reduce)').matches ? 'instant' : 'smooth')
})

if (location.hash.startsWith('#msg_')) following = isAtEnd()
else toEnd()
