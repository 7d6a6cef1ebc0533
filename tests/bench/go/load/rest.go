package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// restClient speaks HTTP/1.1 over one kept connection; net/http's own client costs as much as Envoy.
type restClient struct {
	target     string
	headers    map[string]string
	connection net.Conn
	in         *bufio.Reader
	out        *bytes.Buffer
}

func (c *restClient) send(a *ask) (bool, error) {
	replayed, err := c.exchange(a)
	if err != nil && c.connection != nil {
		c.connection.Close()
		c.connection = nil
	}
	return replayed, err
}

func (c *restClient) exchange(a *ask) (bool, error) {
	if c.connection == nil {
		connection, err := net.DialTimeout("tcp", c.target, patience)
		if err != nil {
			return false, err
		}
		c.connection, c.in = connection, bufio.NewReader(connection)
	}
	c.connection.SetDeadline(time.Now().Add(patience))
	c.write(a)
	if _, err := c.connection.Write(c.out.Bytes()); err != nil {
		return false, err
	}
	return c.read()
}

func (c *restClient) write(a *ask) {
	path, body := document(a)
	c.out.Reset()
	fmt.Fprintf(c.out, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n",
		path, c.target, len(body))
	for name, value := range c.headers {
		fmt.Fprintf(c.out, "%s: %s\r\n", name, value)
	}
	fmt.Fprintf(c.out, "Idempotency-Key: %s\r\n\r\n%s", a.key, body)
}

func (c *restClient) read() (bool, error) {
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return false, err
	}
	if answer.StatusCode >= 300 {
		return false, fmt.Errorf("%d %.300s", answer.StatusCode, body)
	}
	if answer.Close { // a server without keep-alive: the next call dials again
		c.connection.Close()
		c.connection = nil
	}
	return answer.Header.Get("Idempotent-Replayed") == "true", nil
}

func document(a *ask) (path, body string) {
	switch a.kind {
	case "create":
		return "/new-order", fmt.Sprintf(`{"store_id":%q,"order_id":%q,"user_id":%q,"grand_total":%.2f}`,
			a.store, a.number, a.user, a.total())
	case "recent":
		return "/user-orders", fmt.Sprintf(`{"user_id":%q,"store_id":%q}`, a.user, a.store)
	case "accept":
		return "/store-checkout-draft-items-post-one", fmt.Sprintf(draftDocument, a.number, a.number, a.total(), a.key)
	}
	lines := make([]string, len(a.rows))
	for i, row := range a.rows {
		lines[i] = fmt.Sprintf(`{"quantity":1,"price":%.2f,"optionCode":%q,"date":"2030-01-01"}`, a.total(), optionCode(row))
	}
	return "/orders", fmt.Sprintf(orderDocument, a.userID, strings.Join(lines, ","))
}

const orderDocument = `{"requesterId":1001,"userId":%d,"facilityId":7,"shippingAddressId":301,` +
	`"billingAddressId":302,"shippingMethod":"GROUND","quoteItems":[%s]}`

const draftDocument = `{"checkout_draft_item_id":"item-%s","checkout_draft_id":"draft-%s","entity_number":"1001",` +
	`"line_number":1,"product_number":"PRO-1001-0001","sku":"PH-SPECIA-10010001",` +
	`"product_name":"Pandan Coconut Sea Salt Latte","quantity":15,"unit_price":158,"line_total":%.2f,` +
	`"is_active":"true","created_at":"2026-05-04T09:07:00+08:00","updated_at":"2026-05-04T09:07:00+08:00",` +
	`"idempotency_key":%q}`
