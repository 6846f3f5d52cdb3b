// The composer: it grows, keeps its draft, sends by Enter, and gives up its text only when that stands in the thread.

const form = document.querySelector('[data-composer]')
const field = form.querySelector('textarea')
const drafts = `draft:${form.dataset.person}:`
const draft = drafts + form.dataset.composer
const touch = matchMedia('(pointer: coarse)')

// What somebody else left in this tab is not for the one who is signed in now.
for (const key of Object.keys(sessionStorage)) {
  if (key.startsWith('draft:') && !key.startsWith(drafts)) sessionStorage.removeItem(key)
}
if (!field.value) field.value = sessionStorage.getItem(draft) ?? ''
changed()
if (field.value.trim()) document.addEventListener('DOMContentLoaded', estimate)

if (!field.autofocus && !touch.matches && !location.hash) field.focus({ preventScroll: true })

field.addEventListener('input', changed)
field.addEventListener('keydown', event => {
  if (!sends(event)) return
  event.preventDefault()
  const send = form.querySelector('[data-send]:enabled')
  if (send) form.requestSubmit(send)
})

function sends(event) {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return false
  return !touch.matches || event.ctrlKey || event.metaKey
}

// A message that is edited keeps its draft, too, until it is sent or given up. Escape gives it up.

const edited = element => element.closest?.('[data-edit]')
const draftOf = edit => `${drafts}edit:${edit.dataset.edit}`

document.addEventListener('input', event => {
  const edit = edited(event.target)
  if (edit) sessionStorage.setItem(draftOf(edit), edit.value)
})
document.addEventListener('keydown', event => {
  const edit = edited(event.target)
  const dialog = event.target.closest?.('dialog.edit')
  if (!dialog || event.isComposing) return
  if (event.key === 'Escape') dialog.close()
  else if (edit && sends(event)) edit.form.requestSubmit()
  else return
  event.preventDefault()
})
document.addEventListener('close', event => {
  const edit = event.target.querySelector?.('[data-edit]')
  if (edit) sessionStorage.removeItem(draftOf(edit))
}, true)
document.addEventListener('htmx:afterSwap', event => {
  const edit = event.detail.target?.matches?.('.message__edit') && event.detail.target.querySelector('[data-edit]')
  if (!edit) return
  edit.value = sessionStorage.getItem(draftOf(edit)) ?? edit.value
  edit.focus()
  edit.setSelectionRange(edit.value.length, edit.value.length)
  if (edit.value !== edit.defaultValue) window.htmx?.trigger(edit, 'estimate')
})
document.addEventListener('htmx:afterRequest', event => {
  const id = event.detail.requestConfig?.path.match(/\/messages\/(\w+)\/edits$/)?.[1]
  if (!id || event.detail.requestConfig.verb !== 'post') return
  if (event.detail.successful) sessionStorage.removeItem(`${drafts}edit:${id}`)
  if (event.detail.xhr.status === 409) window.htmx.trigger(document.getElementById(`${id}-text`), 'estimate')
})

document.addEventListener('model', estimate)
document.addEventListener('attachments', event => {
  drawSend()
  if (isEmpty()) document.getElementById('composer-estimate').replaceChildren()
  else if (event.detail.areOther) estimate()
})
document.addEventListener('htmx:afterSwap', event => {
  if (!isEmpty() && event.detail.requestConfig?.elt?.matches?.('[data-branch]')) estimate()
})

document.addEventListener('click', event => {
  const prompt = event.target.closest('[data-prompt]')
  if (!prompt || event.ctrlKey || event.metaKey) return
  event.preventDefault()
  write(prompt.dataset.prompt)
  field.focus()
  field.setSelectionRange(field.value.length, field.value.length)
})

// A fresh Send comes with every reply; it must know at once whether there is anything to send.
new MutationObserver(drawSend).observe(form.querySelector('.composer__bar'), { childList: true })

document.addEventListener('htmx:beforeRequest', event => {
  if (isTurn(event)) document.getElementById('composer-notice').replaceChildren()
})
document.addEventListener('htmx:afterRequest', event => {
  const { xhr } = event.detail
  if (!isTurn(event)) return
  if (xhr.status === 409) estimate()
  if (xhr.status < 200 || xhr.status >= 400) return
  if (xhr.getResponseHeader('HX-Redirect')) sessionStorage.removeItem(draft)
  else forgetSent()
})

// The composer's own sending, and that of the dialog that sells tokens for a waiting message.
const isTurn = event => /\/(turns|purchases)$/.test(event.detail.requestConfig?.path ?? '')

// What was typed while the message was on its way stays. So does everything, if the thread does not show what was sent.
function forgetSent() {
  const said = [...document.querySelectorAll('#thread .message--user')].at(-1)?.querySelector('.message__body')?.textContent.trim()
  const typed = field.value.trimStart()
  if (said && typed.startsWith(said)) write(typed.slice(said.length).trimStart())
}

function write(text) {
  field.value = text
  field.dispatchEvent(new Event('input', { bubbles: true }))
}

function changed() {
  if (field.value) sessionStorage.setItem(draft, field.value)
  else sessionStorage.removeItem(draft)
  if (!CSS.supports('field-sizing', 'content')) {
    field.style.height = 'auto'
    field.style.height = `${field.scrollHeight}px`
  }
  drawSend()
}

// An image needs no words.
function isEmpty() {
  return !field.value.trim() && !form.querySelector('[data-thumb]')
}

function drawSend() {
  const send = form.querySelector('[data-send]')
  if (send) send.disabled = isEmpty() || form.matches('[data-uploading], [data-blind]:has([data-thumb])')
}

function estimate() {
  window.htmx?.trigger(field, 'estimate')
}
