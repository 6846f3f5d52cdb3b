// The model picker: filter by typing, say what is chosen on the composer, remember it for the next new chat.

const picker = document.querySelector('[data-picker]')
const filter = picker.querySelector('#filter')
const models = [...picker.querySelectorAll('[data-model]')]
const groups = [...picker.querySelectorAll('.picker__group')]
const none = picker.querySelector('[data-none]')
const isNewChat = document.querySelector('[data-composer="new"]') !== null

filter.addEventListener('input', () => {
  const words = filter.value.trim().toLowerCase()
  for (const model of models) {
    const maker = model.querySelector('.model__maker').textContent
    model.hidden = !`${model.dataset.model} ${maker}`.toLowerCase().includes(words)
  }
  for (const group of groups) group.hidden = !group.querySelector('[data-model]:not([hidden])')
  none.hidden = groups.some(group => !group.hidden)
})

filter.addEventListener('keydown', event => {
  if (event.key !== 'ArrowDown' && event.key !== 'Enter') return
  event.preventDefault()
  const open = models.filter(model => !model.hidden).map(model => model.querySelector('input')).filter(input => !input.disabled)
  const first = open.find(input => input.checked) ?? open[0]
  if (event.key === 'ArrowDown') first?.focus()
  else if (filter.value && open[0]) choose(open[0])
})

picker.addEventListener('change', event => {
  if (event.target.name === 'model') chosen(event.target)
  if (event.target.name === 'temperature') tempered(event.target)
})

// A click chooses and closes; arrow keys try out, and Enter closes.
picker.addEventListener('click', event => {
  const label = event.target.closest('[data-model]')
  if (label && event.detail > 0 && !label.querySelector('input').disabled) setTimeout(close)
})
picker.addEventListener('keydown', event => {
  if (event.key !== 'Enter' || event.target.name !== 'model') return
  event.preventDefault()
  close()
})

picker.addEventListener('toggle', event => {
  if (event.newState === 'open') return
  filter.value = ''
  filter.dispatchEvent(new Event('input'))
})

function choose(input) {
  input.checked = true
  chosen(input)
  close()
}

function chosen(input) {
  document.querySelector('[data-chosen]').textContent = input.closest('[data-model]').dataset.model
  if (isNewChat) {
    const secure = location.protocol === 'https:' ? '; secure' : ''
    document.cookie = `model=${encodeURIComponent(input.value)}; path=/; max-age=31536000; samesite=lax${secure}`
  }
  document.dispatchEvent(new Event('model'))
}

function tempered(input) {
  document.querySelector('[data-chosen-step]').textContent = input.closest('[data-step]').dataset.step
  document.dispatchEvent(new Event('model'))
}

function close() {
  picker.hidePopover()
  if (!matchMedia('(pointer: coarse)').matches) document.querySelector('.composer__text').focus()
}
