package session

import (
	"context"
	"sync"
)

// questions are what the VM has been asked and has not answered yet, by number: 1, 2, ... The zero value is
// ready for use.
type questions[A any] struct {
	mu    sync.Mutex
	asked uint32            // questions so far
	open  map[uint32]chan A // with room for the answer
}

// ask poses the next question and waits for its answer. An error is the context's.
func (q *questions[A]) ask(ctx context.Context, pose func(number uint32)) (A, error) {
	number, answer := q.next()
	defer q.withdraw(number)
	pose(number)
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		var none A
		return none, context.Cause(ctx)
	}
}

func (q *questions[A]) next() (uint32, <-chan A) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		q.open = make(map[uint32]chan A)
	}
	q.asked++
	answer := make(chan A, 1)
	q.open[q.asked] = answer
	return q.asked, answer
}

func (q *questions[A]) withdraw(number uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, number)
}

// settle passes the VM's answer to whoever waits for it. A late answer is ignored. It reports false if the
// question was never asked.
func (q *questions[A]) settle(number uint32, a A) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if number == 0 || number > q.asked {
		return false
	}
	if answer := q.open[number]; answer != nil {
		answer <- a
		delete(q.open, number)
	}
	return true
}
