// The frame of every page: theme, dialogs, menus, keys, copying, and what is said when an answer does not come.

const $ = (selector, root = document) => root.querySelector(selector)
const mac = /Mac|iPhone|iPad/.test(navigator.platform)
const TOAST_MS = 5000
const COPIED_MS = 1600

// Theme. The server draws it from the same cookie, so no page flashes.

document.addEventListener('submit', event => {
  const form = event.target.closest('[data-theme-switch]')
  if (!form || !event.submitter) return
  event.preventDefault()
  const theme = event.submitter.value
  const age = theme === 'system' ? 0 : 31536000
  const secure = location.protocol === 'https:' ? '; secure' : ''
  document.cookie = `theme=${theme}; path=/; max-age=${age}; samesite=lax${secure}`
  if (theme === 'system') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
  for (const button of form.querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(button === event.submitter))
  }
})

// Drafts are for whoever is signed in.

document.addEventListener('submit', event => {
  if (event.target.matches('[data-signs-out]')) sessionStorage.clear()
})

// An image that was sent up for a message that is being edited.

document.addEventListener('htmx:afterRequest', event => {
  const { elt } = event.detail
  if (!elt.matches?.('.edit .attach__file')) return
  elt.value = ''
  window.htmx.trigger($('textarea', elt.form), 'estimate')
})

// Dialogs. The server draws them open, so that they work without this module; here they become modal.

function makeModal(dialog) {
  if (dialog.matches(':modal')) return
  dialog.removeAttribute('open')
  dialog.showModal()
  dialog.addEventListener('close', () => dialog.remove(), { once: true })
}

// Where a dialog is all that a page shows, closing it leads back.
function leadBack(dialog) {
  const back = $('a[data-close]', dialog)
  if (back) dialog.addEventListener('close', () => location.assign(back.href), { once: true })
}

const dialogs = $('#dialogs')
if (dialogs) {
  const openAll = () => dialogs.querySelectorAll('dialog[data-modal]').forEach(makeModal)
  new MutationObserver(openAll).observe(dialogs, { childList: true })
  openAll()
  dialogs.querySelectorAll('dialog[data-modal]').forEach(leadBack)
}

document.addEventListener('click', event => {
  const close = event.target.closest('[data-close]')
  const opener = event.target.closest('[data-opens]')
  if (close) {
    event.preventDefault()
    close.closest('dialog').close()
  } else if (opener) {
    opener.closest('[popover]')?.hidePopover()
    document.getElementById(opener.dataset.opens).showModal()
  } else if (event.target.matches('dialog[data-modal], #keys')) {
    if (outside(event, event.target)) event.target.close()
  }
})

function outside(event, element) {
  const box = element.getBoundingClientRect()
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom
}

// Menus: a verb closes its menu, arrows walk through it.

document.addEventListener('click', event => {
  const menu = event.target.closest('.menu a')?.closest('.menu')
  if (menu?.matches(':popover-open')) menu.hidePopover()
})

document.addEventListener('keydown', event => {
  if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return
  const menu = $('.menu:popover-open')
  if (!menu) return
  const items = [...menu.querySelectorAll('a, button')].filter(item => item.checkVisibility())
  const step = event.key === 'ArrowDown' ? 1 : -1
  const at = items.indexOf(document.activeElement)
  items.at(at < 0 ? (step > 0 ? 0 : -1) : (at + step) % items.length).focus()
  event.preventDefault()
})

// Popovers whose content is fetched: receipts once, prices (data-fresh) at every opening. The press that closes an open
// popover must not open it again.

let pressed = null
document.addEventListener('pointerdown', event => {
  const popover = popoverOf(openerOf(event.target))
  pressed = popover?.matches(':popover-open') ? popover : null
}, true)

document.addEventListener('click', event => {
  const opener = openerOf(event.target)
  const popover = popoverOf(opener)
  const closes = popover && popover === pressed && event.detail > 0
  if (!popover || event.ctrlKey || event.metaKey) return
  if (!closes && (!popover.childElementCount || 'fresh' in opener.dataset)) return
  event.preventDefault()
  event.stopPropagation()
  if (!closes && !popover.matches(':popover-open')) popover.showPopover()
}, true)

document.addEventListener('htmx:afterSwap', event => {
  const target = event.detail.target
  if (target?.matches?.('[data-fetched]:not(:popover-open)')) target.showPopover()
})

const openerOf = element => element.closest('[data-fetches]')
const popoverOf = opener => opener && document.getElementById(opener.dataset.fetches)

// Copying. What is copied is found beside the button, or fetched as the model wrote it.

document.addEventListener('click', async event => {
  const button = event.target.closest('[data-copy], [data-copy-from]')
  if (!button) return
  event.preventDefault()
  try {
    await navigator.clipboard.write([new ClipboardItem({ 'text/plain': textOf(button) })])
    copied(button)
  } catch {
    if (button.href) location.assign(button.href)
  }
})

async function textOf(button) {
  if (button.matches('[data-copy-from]')) {
    const answer = await fetch(button.href)
    if (!answer.ok) throw new Error(String(answer.status))
    return new Blob([await answer.text()], { type: 'text/plain' })
  }
  const place = button.closest('figure, article')
  const text = $(button.dataset.copy || 'pre', place).textContent
  return new Blob([text], { type: 'text/plain' })
}

function copied(button) {
  const drawing = $('use', button)
  const before = drawing.getAttribute('href')
  if (before.endsWith('#check')) return
  drawing.setAttribute('href', before.replace(/#.*/, '#check'))
  announce($('#announcer').dataset.copied)
  setTimeout(() => drawing.setAttribute('href', before), COPIED_MS)
}

function announce(text) {
  $('#announcer').textContent = text
}

// Toasts go by themselves.

const toasts = $('#toasts')
const leave = toast => setTimeout(() => toast.remove(), TOAST_MS)
toasts.querySelectorAll('.toast').forEach(leave)
new MutationObserver(changes => {
  for (const change of changes) {
    for (const node of change.addedNodes) if (node.matches?.('.toast')) leave(node)
  }
}).observe(toasts, { childList: true })

// Answers that do not come, or come from nobody who knew where to put them.

function notice(name, fault) {
  const drawn = $(`#notice-${name}`).content.cloneNode(true)
  const number = $('[data-fault]', drawn)
  if (number && fault) number.textContent = fault
  const place = $('#composer-notice')
  if (place) place.replaceChildren(drawn)
  else announce($('strong', drawn).textContent)
}

const isQuiet = event => event.target.matches?.('textarea, input, [data-quiet]')

document.addEventListener('htmx:beforeSwap', event => {
  const { xhr } = event.detail
  if (xhr.status < 400 || xhr.getResponseHeader('HX-Retarget')) return
  event.detail.shouldSwap = false
  if (!isQuiet(event)) notice('fault', xhr.getResponseHeader('X-Request-Id'))
})
for (const name of ['htmx:sendError', 'htmx:timeout']) {
  document.addEventListener(name, event => isQuiet(event) || notice('network'))
}

// Keys.

if (mac) for (const key of document.querySelectorAll('kbd, .menu__note')) key.textContent = key.textContent.replace('Ctrl', '⌘')

document.addEventListener('keydown', event => {
  const command = mac ? event.metaKey : event.ctrlKey
  if (event.key === 'Escape' && event.shiftKey) return focusComposer(event)
  if (event.key === 'Escape') return stop(event)
  if (!command || event.altKey) return
  const key = event.key.toLowerCase()
  if (key === 'k' && !event.shiftKey) go('search', event)
  else if (key === 'o' && event.shiftKey) go('new', event)
  else if (key === '/') {
    event.preventDefault()
    const keys = $('#keys')
    if (keys.open) keys.close()
    else keys.showModal()
  }
})

document.addEventListener('click', event => {
  if (event.target.closest('[data-print]')) print()
})

function go(place, event) {
  event.preventDefault()
  const field = place === 'search' && $('#q')
  if (field) field.select()
  else $(`[data-key="${place}"]`).click()
}

function focusComposer(event) {
  const field = $('.composer__text')
  if (!field) return
  event.preventDefault()
  field.focus()
}

function stop(event) {
  if (event.defaultPrevented || event.isComposing || $('dialog:modal, :popover-open')) return
  $('[data-stop]')?.click()
}
